#!/usr/bin/env python3
"""What a cluster does with more than it can do: a burst, a long overload, and the time until it is well again.

    benchmarks/serving/overload.py [--cpus 2] [--burst 200] [--factor 3] [--seconds 120] [-- ARGUMENTS OF prism up ...]

Starts `prism up` on so many CPUs (this client runs on the same machine, and on the same CPUs if there are no others)
and asks questions about pictures of which no two are equal, so that no cache answers:

1. burst: so many requests, each on a connection that is open already, are sent at one instant. Every one has an outcome;
   a refusal's time counts from the request's last byte.
2. closed loop: --clients ask one question after the other; their answers a second are the goodput.
3. overload: questions arrive at --factor times that rate, at times drawn beforehand (Poisson), whatever became of those before.
   Times count from the time at which a question was due. A good answer is one that is whole within --deadline seconds.
4. recovery: questions arrive at half the goodput; the cluster is well again once ten in a row are answered
   within twice the 95th percentile of the same questions before the overload.

Only Python's standard library is used.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

from measuring import BIN, machine, png_chunk, quantile


class Pictures:
    """PNGs of one drawing in ever new colours: only the palette differs, so that one costs next to nothing to make."""

    def __init__(self, side):
        rng = random.Random(1)
        rows = bytearray()
        for y in range(side):
            rows.append(0)
            rows += bytes((x * 8 // side + y * 8 // side * 8) % 64 if rng.random() < 0.97 else rng.randrange(64)
                          for x in range(side))
        self.head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0))
        self.data = png_chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + png_chunk(b"IEND", b"")
        self.rng = random.Random(2)

    def next(self):
        palette = png_chunk(b"PLTE", self.rng.randbytes(3 * 64))
        return b"\x89PNG\r\n\x1a\n" + self.head + palette + self.data


class Load:
    def __init__(self, port, options):
        self.port, self.options = port, options
        self.pictures = Pictures(options.side)

    def request(self):
        url = "data:image/png;base64," + base64.b64encode(self.pictures.next()).decode()
        body = json.dumps({"stream": True, "temperature": 0, "max_tokens": self.options.max_tokens,
                           "messages": [{"role": "user", "content": [
                               {"type": "image_url", "image_url": {"url": url}},
                               {"type": "text", "text": "Describe the picture."}]}]}).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: prism\r\nContent-Type: application/json\r\n"
                f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n")
        return head.encode() + body

    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        writer.transport.set_write_buffer_limits(0)  # drain() waits for the kernel to have it all
        return reader, writer

    async def ask(self, due, request=None, connection=None):
        """One question: what became of it, and seconds since `due` and since its last byte."""
        sent = due
        try:
            reader, writer = connection or await self.connect()
            writer.write(request or self.request())
            await writer.drain()
            sent = time.monotonic()
            status = int((await reader.readline()).split()[1])
            head = time.monotonic()
            retry_ms = 0
            while (line := await reader.readline()).strip():
                if line.lower().startswith(b"retry-after-ms:"):
                    retry_ms = int(line.split(b":")[1])
            text = await reader.read() if status != 200 else b""
            first, done, error = 0.0, False, None
            while status == 200 and (line := await reader.readline()):
                if b'"content":"' in line and b'"content":""' not in line:
                    first = first or time.monotonic()
                if line.startswith(b'data: {"error"'):
                    error = line
                if line.startswith(b"data: [DONE]"):
                    done = True
            end = time.monotonic()
            writer.close()
        except (OSError, ValueError, IndexError, asyncio.IncompleteReadError) as lost:
            return {"kind": "lost", "why": repr(lost), "due_s": time.monotonic() - due, "sent_s": time.monotonic() - sent}
        kind = "answered" if status == 200 and done and not error else "broken" if status == 200 else str(status)
        return {"kind": kind, "due_s": end - due, "sent_s": head - sent, "first_s": (first or end) - due,
                "retry_ms": retry_ms, "end": end, "why": (error or text)[:200]}

    async def closed_loop(self, clients, seconds):
        stop = time.monotonic() + seconds
        results = []

        async def client():
            while time.monotonic() < stop:
                results.append(await self.ask(time.monotonic()))
        await asyncio.gather(*(client() for _ in range(clients)))
        return results

    async def open_loop(self, rate, seconds, seed):
        """Questions at drawn times; [(due, result)] in the order in which they were due."""
        rng = random.Random(seed)
        start = time.monotonic()
        dues, due = [], start
        while (due := due + rng.expovariate(rate)) < start + seconds:
            dues.append(due)
        tasks = []
        for due in dues:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask(due)))
        return list(zip(dues, await asyncio.gather(*tasks)))


def kinds(results):
    counts = {}
    for result in results:
        counts[result["kind"]] = counts.get(result["kind"], 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def spread(results, key):
    values = [result[key] for result in results]
    return f"p50 {1000 * quantile(values, .5):.0f} ms, p95 {1000 * quantile(values, .95):.0f} ms, worst {1000 * max(values, default=0):.0f} ms"


def print_odd(results):
    for odd in [r for r in results if r["kind"] not in ("answered", "429")][:3]:
        print(f"  odd: {odd}")


async def burst(load, count):
    requests = [load.request() for _ in range(count)]
    connections = [await load.connect() for _ in range(count)]
    due = time.monotonic()
    results = await asyncio.gather(*(load.ask(due, r, c) for r, c in zip(requests, connections)))
    answered = [r for r in results if r["kind"] == "answered"]
    refused = [r for r in results if r["kind"] == "429"]
    print(f"burst of {count}: {len(results)} outcomes: {kinds(results)}; over after {max(r['due_s'] for r in results):.1f} s")
    if answered:
        print(f"  first tokens: {spread(answered, 'first_s')}")
    if refused:
        print(f"  refusals since the last byte: {spread(refused, 'sent_s')}; told to come back in "
              f"{min(r['retry_ms'] for r in refused)} .. {max(r['retry_ms'] for r in refused)} ms")
    print_odd(results)


async def run(load, options):
    await load.closed_loop(2, 3)  # caches, allocators and rates are warm
    for count in options.burst:
        await burst(load, count)
        await asyncio.sleep(2)
    if not options.seconds:
        return
    calm = await load.closed_loop(options.clients, options.closed_seconds)
    goodput = sum(r["kind"] == "answered" for r in calm) / options.closed_seconds
    print(f"closed loop, {options.clients} clients: {goodput:.1f} answers/s; {kinds(calm)}; whole answers {spread(calm, 'due_s')}")
    await asyncio.sleep(2)
    before = [r for _, r in await load.open_loop(goodput / 2, 10, 3)]
    usual = 2 * quantile([r["due_s"] for r in before], .95)
    print(f"before, at half of it: {kinds(before)}; whole answers {spread(before, 'due_s')}")

    begun = time.monotonic()
    over = [r for _, r in await load.open_loop(options.factor * goodput, options.seconds, 4)]
    ended = begun + options.seconds
    good = [r for r in over if r["kind"] == "answered" and r["due_s"] <= options.deadline]
    within = sum(r["end"] <= ended for r in good)
    refused = [r for r in over if r["kind"] == "429"]
    print(f"overload, {options.factor:g} x for {options.seconds} s: {len(over)} questions, {len(over) / options.seconds:.1f}/s: {kinds(over)}")
    print(f"  goodput (whole within {options.deadline} s): {within / options.seconds:.1f} answers/s, "
          f"{100 * within / options.seconds / goodput:.0f} % of the closed loop's")
    print(f"  answers: first token {spread(good, 'first_s')}; whole {spread(good, 'due_s')}")
    if refused:
        print(f"  refusals since the last byte: {spread(refused, 'sent_s')}; told to come back in "
              f"{quantile([r['retry_ms'] for r in refused], .5):.0f} ms (median)")

    print_odd(over)
    after = await load.open_loop(goodput / 2, 30, 5)
    well, run_length = None, 0
    for due, result in after:
        run_length = run_length + 1 if result["kind"] == "answered" and result["due_s"] <= usual else 0
        if run_length == 10:
            well = due
            break
    # The last of the overload's answers were awaited before these questions began: that time is part of it.
    print(f"recovery: ten answers in a row within {1000 * usual:.0f} ms "
          + (f"{max(0.0, well - ended):.1f} s after the end of the overload" if well else "not within 30 s")
          + f"; {kinds([r for _, r in after])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=2, help="CPUs that the whole cluster may use")
    parser.add_argument("--side", type=int, default=224, help="pixels of the pictures' sides")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--burst", type=int, nargs="*", default=[200], help="requests at one instant; several bursts follow each other")
    parser.add_argument("--clients", type=int, default=16, help="of the closed loop")
    parser.add_argument("--closed-seconds", type=int, default=20)
    parser.add_argument("--factor", type=float, default=3)
    parser.add_argument("--seconds", type=int, default=120, help="of the overload; 0: only the bursts")
    parser.add_argument("--deadline", type=float, default=15, help="seconds within which an answer is good")
    parser.add_argument("--port", type=int, default=0, help="of a cluster that runs already")
    parser.add_argument("up", nargs="*", help="arguments of prism up, behind --")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:options.cpus]
    print(machine(len(cpus)), flush=True)
    if options.port:
        return asyncio.run(run(Load(options.port, options), options))
    with tempfile.TemporaryDirectory(prefix="prism_overload_") as logs:
        cluster = subprocess.Popen([BIN / "prism", "up", "--port", "0", "--log-dir", logs, *options.up],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                   preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        try:
            line = cluster.stdout.readline()
            if not line.startswith("ready "):
                sys.exit("the cluster did not start")
            asyncio.run(run(Load(int(line.rsplit(":", 1)[1]), options), options))
        finally:
            cluster.send_signal(signal.SIGTERM)
            cluster.wait(30)


if __name__ == "__main__":
    main()
