#!/usr/bin/env python3
"""A class asks at once: many users, each with a picture and a question, against a running cluster.

    benchmarks/serving/classroom.py --url http://127.0.0.1:8000 [--users 50] [--within-s 10] [--tokens 200]

Every user sends one picture of --width x --height that nobody sent before and about --words words, at a moment of
the first --within-s seconds (evenly spread, in a seeded order), and reads --tokens tokens as they come (temperature
1 over all tokens, the end of the text ignored). It prints the time to the first token (from the request's sending), the time
between tokens and tokens a second, from the first request to the last token; then --alone users one after another,
for comparison. The exit status is 1 if an answer fails or is short.

Only Python's standard library is used.
"""

import argparse
import base64
import concurrent.futures
import http.client
import json
import random
import sys
import time
import urllib.parse

from measuring import quantile, rgb_png

WORDS = "the red of what is picture a box which circle there how many left under three colour of it and say".split()


def picture(seed, width, height):
    """A PNG of bars in random colours with some noise: large enough as a file to be no special case."""
    rng = random.Random(seed)
    bars = b"".join(bytes(rng.randrange(256) for _ in range(3)) * 16 for _ in range((width + 15) // 16))[:3 * width]
    noise = rng.randbytes(3 * width)
    row = bytes((a & 0xF0) | (b & 0x0F) for a, b in zip(bars, noise))
    return rgb_png([row[(7 * y) % (3 * width):] + row[:(7 * y) % (3 * width)] for y in range(height)], level=1)


def body_of(seed, options):
    rng = random.Random(seed)
    url = "data:image/png;base64," + base64.b64encode(picture(seed, options.width, options.height)).decode()
    question = " ".join(rng.choice(WORDS) for _ in range(options.words))
    return json.dumps({
        "stream": True, "temperature": 1, "top_p": 1, "top_k": -1, "seed": seed, "max_tokens": options.tokens, "ignore_eos": True,
        "return_token_ids": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
                                                  {"type": "text", "text": question}]}]}).encode()


def ask(address, body, at):
    """When it was sent, when each token came, and the prompt's tokens; seconds of time.monotonic()."""
    delay = at - time.monotonic()
    if delay > 0:
        time.sleep(delay)
    connection = http.client.HTTPConnection(address, timeout=300)
    sent = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {response.read()[:300]!r}")
    times, prompt = [], 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(event["error"])
        prompt = (event.get("usage") or {}).get("prompt_tokens", prompt)
        for choice in event.get("choices", []):
            times += [time.monotonic()] * len(choice.get("token_ids") or [])
    connection.close()
    return sent, times, prompt


def report(name, answers, options):
    """Prints a run's figures; the number of answers that are short."""
    first = [1e3 * (times[0] - sent) for sent, times, _ in answers if times]
    between = [1e3 * (b - a) for _, times, _ in answers for a, b in zip(times, times[1:])]
    tokens = sum(len(times) for _, times, _ in answers)
    seconds = max(times[-1] for _, times, _ in answers if times) - min(sent for sent, _, _ in answers)
    print(f"{name}: {len(answers)} answers, {tokens} tokens after prompts of {answers[0][2]}, {seconds:.2f} s, "
          f"{tokens / seconds:.0f} tok/s")
    print(f"  first token: p50 {quantile(first, 0.5):.0f} ms, p95 {quantile(first, 0.95):.0f} ms, worst {max(first):.0f} ms")
    print(f"  between tokens: p50 {quantile(between, 0.5):.2f} ms, p95 {quantile(between, 0.95):.2f} ms, "
          f"p99 {quantile(between, 0.99):.2f} ms, worst {max(between):.0f} ms", flush=True)
    return sum(len(times) != options.tokens for _, times, _ in answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--within-s", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--words", type=int, default=32, help="of the question; about 64 tokens with the format around it")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--alone", type=int, default=3, help="users that ask one after another, before the class")
    parser.add_argument("--rounds", type=int, default=1, help="classes, one after another")
    options = parser.parse_args()
    address = urllib.parse.urlsplit(options.url).netloc

    short = 0
    if options.alone:
        bodies = [body_of(10_000 + user, options) for user in range(options.alone + 1)]
        ask(address, bodies[0], 0)  # meets cold caches
        short += report("alone", [ask(address, body, 0) for body in bodies[1:]], options)
    for round_ in range(options.rounds):
        bodies = [body_of(1_000_000 * (round_ + 1) + user, options) for user in range(options.users)]
        moments = [options.within_s * (user + 0.5) / options.users for user in range(options.users)]
        random.Random(round_).shuffle(moments)
        begun = time.monotonic() + 0.5
        with concurrent.futures.ThreadPoolExecutor(options.users) as pool:
            answers = list(pool.map(lambda pair: ask(address, pair[0], begun + pair[1]), zip(bodies, moments)))
        short += report(f"class {round_ + 1}", answers, options)
    if short:
        print(f"{short} answers are short")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
