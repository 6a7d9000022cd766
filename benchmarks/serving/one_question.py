#!/usr/bin/env python3
"""How long a cluster takes to answer one question about one picture, and how much memory it holds.

    benchmarks/serving/one_question.py [--cpus 2] [--times 20] [-- ARGUMENTS OF prism up ...]

Starts `prism up` on so many CPUs, asks the same question about a picture of 448 x 448 that is drawn anew each
time (so that no cache answers), one question at a time, and prints: time to the first token and to the end of the
answer, in milliseconds, each as median, 90 % and worst; the stages that the services' metrics name; and the
proportional memory (PSS: shared pages counted by their share) of each program, right after the start, after the
questions, and after --burst more asked at once. The first question is apart: it meets cold caches.

Only Python's standard library is used; Linux with /proc/PID/smaps_rollup.
"""

import argparse
import base64
import concurrent.futures
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import BIN, machine, rgb_png


def drawing(rng, side):
    """A PNG of a few discs and boxes of one colour each on a pale ground with noise."""
    rows = [bytearray(side * 3) for _ in range(side)]
    ground = [rng.randrange(200, 256) for _ in range(3)]
    noise = bytes(rng.randrange(4) for _ in range(side * 3))
    for row in rows:
        row[:] = bytes(ground) * side
    for _ in range(rng.randrange(2, 6)):
        color = bytes(rng.randrange(0, 200) for _ in range(3))
        radius = rng.randrange(side // 16, side // 6)
        x, y = (rng.randrange(radius, side - radius) for _ in range(2))
        round_one = rng.random() < 0.5
        for dy in range(-radius, radius):
            half = int((radius * radius - dy * dy) ** 0.5) if round_one else radius
            rows[y + dy][(x - half) * 3:(x + half) * 3] = color * (2 * half)
    for i, row in enumerate(rows):
        shift = (i * 97) % (side * 3)
        rows[i] = bytearray(max(0, a - b) for a, b in zip(row, noise[shift:] + noise[:shift]))
    return rgb_png(rows, level=1)


def ask(port, picture, question, max_tokens):
    """Seconds to the first token, to the end, tokens, and the text."""
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    body = json.dumps({"stream": True, "temperature": 0, "max_tokens": max_tokens, "return_token_ids": True,
                       "messages": [{"role": "user", "content": [
                           {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    begun = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {response.read()[:300]!r}")
    first, text, tokens, done = None, "", 0, False
    for line in response:
        if line.strip() == b"data: [DONE]":
            done = True
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(event["error"])
        for choice in event.get("choices", []):
            ids = choice.get("token_ids") or []
            if ids and first is None:
                first = time.monotonic() - begun
            tokens += len(ids)
            text += choice["delta"].get("content") or ""
    connection.close()
    if not done or first is None:
        raise RuntimeError("the stream broke off")
    return first, time.monotonic() - begun, tokens, text


def programs_of(pid):
    """name -> pid of `prism up` and what it started."""
    found = {"prism up": pid}
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", other, "stat").read_text()
            if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                found[Path(os.readlink(f"/proc/{other}/exe")).name + f" {other}"] = int(other)
        except (OSError, ValueError):
            continue
    return found


def pss_mib(pid):
    """Proportional memory of a process, and the part of it that is anonymous, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return tuple(int(re.search(rf"^{name}:\s+(\d+)", text, re.M).group(1)) / 1024 for name in ("Pss", "Pss_Anon"))


def print_memory(when, pid):
    parts = {name: pss_mib(other) for name, other in programs_of(pid).items()}
    words = ", ".join(f"{re.sub(r' [0-9]+$', '', name)} {total:.0f}" for name, (total, _) in parts.items())
    print(f"PSS {when}: {sum(total for total, _ in parts.values()):.0f} MiB "
          f"(anonymous {sum(part for _, part in parts.values()):.0f}): {words}")


def spread(name, seconds):
    ordered = sorted(1000 * value for value in seconds)
    print(f"{name}: median {ordered[len(ordered) // 2]:.0f} ms, 90 % {ordered[int(len(ordered) * 0.9)]:.0f} ms, "
          f"worst {ordered[-1]:.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=2, help="CPUs that the whole cluster may use")
    parser.add_argument("--times", type=int, default=20, help="questions")
    parser.add_argument("--side", type=int, default=448, help="pixels of the picture's sides")
    parser.add_argument("--question", default="Describe the picture.")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--burst", type=int, default=16, help="more questions, all at once, before the last look at memory")
    parser.add_argument("up", nargs="*", help="arguments of prism up, behind --")
    options = parser.parse_args()

    cpus = sorted(os.sched_getaffinity(0))[:options.cpus]
    if len(cpus) < options.cpus:
        parser.error(f"this machine lends {len(cpus)} CPUs")
    print(machine(options.cpus))

    pictures = [drawing(random.Random(seed), options.side) for seed in range(options.times + options.burst + 1)]
    with tempfile.TemporaryDirectory(prefix="prism_bench_") as logs:
        begun = time.monotonic()
        cluster = subprocess.Popen([BIN / "prism", "up", "--port", "0", "--log-dir", logs, *options.up],
                                   stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        try:
            line = cluster.stdout.readline()
            if not line.startswith("ready "):
                sys.exit("the cluster did not start")
            port = int(line.rsplit(":", 1)[1])
            print(f"ready after {time.monotonic() - begun:.2f} s")
            print_memory("at the start", cluster.pid)
            first, total, tokens, text = ask(port, pictures[0], options.question, options.max_tokens)
            print(f"the first question: {1000 * first:.0f} ms to the first token, {1000 * total:.0f} ms in all")
            taken = [ask(port, picture, options.question, options.max_tokens) for picture in pictures[1:options.times + 1]]
            spread("first token", [first for first, _, _, _ in taken])
            spread("whole answer", [total for _, total, _, _ in taken])
            rates = [(total - first) / (tokens - 1) for first, total, tokens, _ in taken if tokens > 1]
            print(f"tokens an answer: {min(t for _, _, t, _ in taken)} .. {max(t for _, _, t, _ in taken)}"
                  + (f", {1000 * sum(rates) / len(rates):.1f} ms each after the first" if rates else ""))
            print(f"the last answer: {taken[-1][3]!r}")
            print_memory("after the questions", cluster.pid)
            if options.burst:
                with concurrent.futures.ThreadPoolExecutor(options.burst) as pool:
                    burst_begun = time.monotonic()
                    list(pool.map(lambda picture: ask(port, picture, options.question, options.max_tokens),
                                  pictures[options.times + 1:]))
                print(f"{options.burst} at once: {time.monotonic() - burst_begun:.2f} s for all")
                print_memory("after these", cluster.pid)
        finally:
            cluster.send_signal(signal.SIGTERM)
            cluster.wait(30)


if __name__ == "__main__":
    main()
