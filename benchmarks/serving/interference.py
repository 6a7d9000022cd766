#!/usr/bin/env python3
"""What pictures cost those who only read: steady text streams, then picture requests that arrive on top.

    benchmarks/serving/interference.py --model DIR [--load-format synthetic] [--encoder-device cuda:1]
                                       [--decoder-device cuda:0] [--streams 16] [--pictures 16] [-- DECODER ARGUMENTS]

Starts a vision encoder, a decoder, a router and a gateway, each on the device given, and opens --streams answers
of text alone (temperature 1, the end of the text ignored). After --quiet-s of all of them it sends --pictures
requests at once, each with a picture of --width x --height that nobody sent before and --picture-tokens tokens to
answer, and waits for their answers; --rounds times, --quiet-s apart. It prints the time between a text stream's
tokens: without pictures, from a request's sending until the last picture is seen (its answer's first token), while
their answers are generated, and in the --window-s from their sending on, which is what a reader notices; as streams
grow longer by themselves, compare that with the same window of --pictures 0. --busy text sends requests of as many
prompt tokens but no picture instead: what the decoder alone does to its streams. The exit status is 1 if an answer
fails.

Only Python's standard library is used.
"""

import argparse
import base64
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measuring import BIN, quantile, rgb_png

WORDS = "the red of what is picture a box which circle there how many left under three colour of it and say".split()


def noise_png(seed, width, height):
    """A PNG of smooth bars with noise, unlike that of any other seed."""
    rng = random.Random(seed)
    row = bytes(rng.randrange(256) for _ in range(3 * width))
    return rgb_png([row[(11 * y) % len(row):] + row[:(11 * y) % len(row)] for y in range(height)], level=1)


class Cluster:
    """The four programs, each on a device of its own choice; use as a context manager."""

    def __init__(self, options):
        self.logs = tempfile.TemporaryDirectory(prefix="prism_bench_")
        self.programs = []
        with_ports = [socket.socket() for _ in range(8)]
        for free in with_ports:
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in with_ports]
        for free in with_ports:
            free.close()
        self.port = ports[6]
        weights = ["--model", options.model, "--load-format", options.load_format]
        try:
            self.start("prism-vision-encoder", ports[0:2], *weights, "--device", options.encoder_device)
            self.start("prism-decoder", ports[2:4], *weights, "--device", options.decoder_device, *options.decoder)
            self.start("prism-router", ports[4:6], "--model", options.model, "--vision-encoders",
                       f"127.0.0.1:{ports[0]}", "--decoders", f"127.0.0.1:{ports[2]}")
            self.start("prism-gateway", ports[6:8], "--router", f"127.0.0.1:{ports[4]}")
            self.await_ready([ports[1], ports[3], ports[5], self.port], options.start_timeout_s)
        except BaseException:
            self.stop()
            raise

    def start(self, name, ports, *arguments):
        log = open(Path(self.logs.name, name), "w")
        self.programs.append((name, subprocess.Popen(
            [BIN / name, "--host", "127.0.0.1", "--port", str(ports[0]), "--metrics-port", str(ports[1]), *arguments],
            stdout=log, stderr=log)))

    def await_ready(self, ports, seconds):
        deadline = time.monotonic() + seconds
        for port in ports:
            while not self.is_ready(port):
                for name, program in self.programs:
                    if program.poll() is not None:
                        raise RuntimeError(f"{name} ended:\n" + Path(self.logs.name, name).read_text()[-2000:])
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not ready after {seconds} s")
                time.sleep(0.05)

    @staticmethod
    def is_ready(port):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self):
        for _, program in reversed(self.programs):
            program.terminate()
        for _, program in self.programs:
            try:
                program.wait(30)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.logs.cleanup()


class Answer(threading.Thread):
    """One streamed answer: when it was sent and when each of its tokens came, in seconds of time.monotonic()."""

    def __init__(self, port, content, seed, tokens):
        super().__init__(daemon=True)
        self.port, self.tokens = port, tokens
        self.body = json.dumps({"stream": True, "temperature": 1, "seed": seed, "max_tokens": tokens, "ignore_eos": True,
                                "return_token_ids": True, "stream_options": {"include_usage": True},
                                "messages": [{"role": "user", "content": content}]}).encode()
        self.sent, self.times, self.prompt, self.error = None, [], 0, None
        self.ends = threading.Event()

    def run(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
            self.sent = time.monotonic()
            connection.request("POST", "/v1/chat/completions", self.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"HTTP {response.status}: {response.read()[:300]!r}")
            for line in response:
                if self.ends.is_set():
                    break
                if not line.startswith(b"data: {"):
                    continue
                now = time.monotonic()
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"])
                self.prompt = (event.get("usage") or {}).get("prompt_tokens", self.prompt)
                for choice in event.get("choices", []):
                    self.times += [now] * len(choice.get("token_ids") or [])
            connection.close()
        except (OSError, RuntimeError, ValueError) as error:
            self.error = error


def gaps_within(streams, spans):
    """Seconds between neighbouring tokens of a stream, of gaps that end in one of the spans."""
    return sorted(b - a for stream in streams for a, b in zip(stream.times, stream.times[1:])
                  if any(begin <= b <= end for begin, end in spans))


def print_gaps(name, gaps):
    if not gaps:
        print(f"  {name}: no tokens")
        return
    print(f"  {name}: {len(gaps)} gaps, p50 {1e3 * quantile(gaps, 0.5):.2f} ms, p90 {1e3 * quantile(gaps, 0.9):.2f} ms, "
          f"p95 {1e3 * quantile(gaps, 0.95):.2f} ms, p99 {1e3 * quantile(gaps, 0.99):.2f} ms, worst {1e3 * gaps[-1]:.1f} ms",
          flush=True)


def measure(port, options):
    streams = [Answer(port, " ".join(random.Random(i).choice(WORDS) for _ in range(options.words)), i, options.stream_tokens)
               for i in range(options.streams)]
    for stream in streams:
        stream.start()
    while not all(stream.times or stream.error for stream in streams):
        time.sleep(0.01)
    time.sleep(0.3)  # the prompts are done
    quiet, seen, answering, windows, first_tokens, failed = [], [], [], [], [], 0
    for round_ in range(options.rounds):
        def content(i, round_=round_):
            seed = 1000 * (round_ + 1) + i
            if options.busy == "text":
                rng = random.Random(seed)
                return " ".join(rng.choice(WORDS) for _ in range(options.width * options.height // 1024))
            url = "data:image/png;base64," + base64.b64encode(noise_png(seed, options.width, options.height)).decode()
            return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
        pictures = [Answer(port, content(i), i, options.picture_tokens) for i in range(options.pictures)]
        begun = time.monotonic()
        time.sleep(options.quiet_s)
        asked = time.monotonic()
        for picture in pictures:
            picture.start()
        for picture in pictures:
            picture.join()
        done = time.monotonic()
        time.sleep(max(0, asked + options.window_s - done))
        for picture in pictures:
            if picture.error or len(picture.times) != options.picture_tokens:
                failed += 1
                print(f"  a picture's answer: {len(picture.times)} tokens, {picture.error}")
        good = [picture for picture in pictures if picture.times]
        last_seen = max((picture.times[0] for picture in good), default=done)
        first_tokens += [picture.times[0] - picture.sent for picture in good]
        quiet.append((begun, asked))
        seen.append((asked, last_seen))
        windows.append((asked, asked + options.window_s))
        answering.append((last_seen, done))
        prompts = {picture.prompt for picture in good}
    for stream in streams:
        stream.ends.set()
    if any(stream.times[-1] < windows[-1][1] - 1 for stream in streams):
        print("  a text stream ended before the last window did: give --stream-tokens more")
        failed += 1
    failed += sum(stream.error is not None for stream in streams)
    print(f"  {options.streams} text streams, {options.rounds} times {options.pictures} requests with a "
          f"{options.busy} each, prompts of {sorted(prompts)} tokens, answers of {options.picture_tokens}")
    calm = gaps_within(streams, quiet)
    busy = gaps_within(streams, seen)
    both = gaps_within(streams, seen + answering)
    window = gaps_within(streams, windows)
    print_gaps("text, no others           ", calm)
    print_gaps("text, until all are seen  ", busy)
    print_gaps("text, until all have ended", both)
    print_gaps(f"text, in {options.window_s:g} s from then on ", window)
    if calm and busy:
        print(f"  p95 until all are seen: {quantile(busy, 0.95) / quantile(calm, 0.95):.2f} times; until all have ended: "
              f"{quantile(both, 0.95) / quantile(calm, 0.95):.2f} times; in the window: {quantile(window, 0.95) / quantile(calm, 0.95):.2f} times")
    ordered = sorted(first_tokens)
    if ordered:
        print(f"  first token of the others: p50 {1e3 * quantile(ordered, 0.5):.0f} ms, p95 {1e3 * quantile(ordered, 0.95):.0f} ms",
              flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--encoder-device", default="auto")
    parser.add_argument("--decoder-device", default="auto")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream-tokens", type=int, default=4000, help="the longest answer of a text stream")
    parser.add_argument("--words", type=int, default=50, help="of a text stream's prompt")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--picture-tokens", type=int, default=16)
    parser.add_argument("--busy", choices=("picture", "text"), default="picture", help="what the others send")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--quiet-s", type=float, default=3)
    parser.add_argument("--window-s", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--start-timeout-s", type=float, default=60)
    parser.add_argument("decoder", nargs="*", help="arguments of the decoder, behind --")
    options = parser.parse_args()
    with Cluster(options) as cluster:
        print(f"encoder on {options.encoder_device}, decoder on {options.decoder_device}, {options.model}", flush=True)
        return 1 if measure(cluster.port, options) else 0


if __name__ == "__main__":
    sys.exit(main())
