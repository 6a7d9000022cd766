#!/usr/bin/env python3
"""What a cluster gains from the beginnings that requests share.

    benchmarks/serving/prefix_reuse.py [--tokens 1500] [--times 20] [--pictures] [-- ARGUMENTS OF prism up ...]

Starts `prism up` with the decoder's prefix cache on, and once more with it off. Each asks one question at a time,
greedily, whose first 0, 50 and 80 % are the same in all and whose rest is new each time; with --pictures, about
a picture that 0, 50 and 80 % of the questions share and that is new in the others, followed by the same instruction
of 80 words and 20 that are always new. For each part it prints the time to the first token (median and 90 %), the prompt tokens
found in the prefix cache by the decoder's own count (`vllm:prefix_cache_hits_total` over
`vllm:prefix_cache_queries_total`) and as answers tell (`cached_tokens`), and the pictures found at the encoder,
needed by the decoder (not wholly in known pages) and found in its memory. It fails if an answer with the cache on differs from the one with it off.

Only Python's standard library is used; Linux.
"""

import argparse
import base64
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
import urllib.request
from pathlib import Path

from measuring import BIN, machine
from one_question import drawing

PARTS = (0, 50, 80)
WORDS = ("red green blue round square small large left right above below near far one two three four five disc box "
         "picture page line corner edge light dark pale ground noise colour shape place name count answer").split()


def text(rng, tokens):
    """About so many tokens: the words are one each."""
    return " ".join(rng.choice(WORDS) for _ in range(tokens))


def questions(part, options):
    """(content, is it the first of its kind) of each question."""
    shared = random.Random(part)
    beginning = text(shared, options.tokens * part // 100)
    picture = drawing(shared, options.side)
    instruction = text(random.Random(7), 80)
    made = []
    for number in range(options.times + 1):
        rng = random.Random(1000 * part + number + 1)
        if options.pictures:
            # The first asks about the shared picture, so that later ones can find it.
            again = number == 0 or rng.random() * 100 < part
            url = "data:image/png;base64," + base64.b64encode(picture if again else drawing(rng, options.side)).decode()
            made.append([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": instruction + " " + text(rng, 20)}])
        else:
            made.append([{"type": "text", "text": beginning + " " + text(rng, options.tokens * (100 - part) // 100)}])
    return made


def ask(port, content, max_tokens):
    """Seconds to the first token, prompt tokens, those of them found computed, and the answer's ids."""
    body = json.dumps({"stream": True, "stream_options": {"include_usage": True}, "temperature": 0,
                       "max_tokens": max_tokens, "return_token_ids": True,
                       "messages": [{"role": "user", "content": content}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    begun = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {response.read()[:300]!r}")
    first, ids, usage, done = None, [], {}, False
    for line in response:
        done = done or line.strip() == b"data: [DONE]"
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(event["error"])
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            new = choice.get("token_ids") or []
            if new and first is None:
                first = time.monotonic() - begun
            ids += new
    connection.close()
    if not done or first is None:
        raise RuntimeError("the stream broke off")
    return first, usage["prompt_tokens"], usage.get("prompt_tokens_details", {}).get("cached_tokens", 0), ids


class Metrics:
    """Sums of counters of the cluster's encoders and decoders, as differences between two looks."""

    def __init__(self, state_file):
        members = json.loads(Path(state_file).read_text())
        self.ports = [port for port in re.findall(r'"metrics_port":\s*(\d+)', json.dumps(members))]
        self.before = self.read()

    def read(self):
        sums = {}
        for port in self.ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                for line in page.read().decode().splitlines():
                    found = re.fullmatch(r"([a-z_:]+)(\{.*\})? ([0-9.e+]+)", line)
                    if found:
                        label = re.search(r'result="(\w+)"', found.group(2) or "")
                        name = found.group(1) + (f" {label.group(1)}" if label else "")
                        sums[name] = sums.get(name, 0) + float(found.group(3))
        return sums

    def step(self):
        now = self.read()
        difference = {name: value - self.before.get(name, 0) for name, value in now.items()}
        self.before = now
        return difference


def percent(part, whole):
    return f"{100 * part / whole:.0f} %" if whole else "-"


def run(cached, options, cpus):
    """Part -> (times to the first token, answers), with a line of print each."""
    results = {}
    with tempfile.TemporaryDirectory(prefix="prism_bench_") as folder:
        environment = {**os.environ, "PRISM_ENABLE_PREFIX_CACHING": "true" if cached else "false"}
        state_file = Path(folder) / "state.json"
        cluster = subprocess.Popen([BIN / "prism", "up", "--port", "0", "--log-dir", folder, "--state-file", state_file,
                                    *options.up], stdout=subprocess.PIPE, text=True, env=environment,
                                   preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        try:
            line = cluster.stdout.readline()
            if not line.startswith("ready "):
                sys.exit("the cluster did not start")
            port = int(line.rsplit(":", 1)[1])
            ask(port, [{"type": "text", "text": "Warm up."}], 2)
            metrics = Metrics(state_file)
            for part in PARTS:
                contents = questions(part, options)
                ask(port, contents[0], options.max_tokens)
                metrics.step()
                taken = [ask(port, content, options.max_tokens) for content in contents[1:]]
                count = metrics.step()
                times = sorted(1000 * first for first, _, _, _ in taken)
                prompt = sum(tokens for _, tokens, _, _ in taken)
                hits = count.get("vllm:prefix_cache_hits_total", 0)
                print(f"cache {'on ' if cached else 'off'} reuse {part:2d} %: first token median "
                      f"{times[len(times) // 2]:.0f} ms, 90 % {times[int(len(times) * 0.9)]:.0f} ms; "
                      f"{prompt // len(taken)} prompt tokens, found {percent(hits, count.get('vllm:prefix_cache_queries_total', 0))}, "
                      f"told {percent(sum(found for _, _, found, _ in taken), prompt)}"
                      + (f"; pictures found at the encoder {percent(count.get('prism_embedding_cache_total hit', 0), len(taken))}"
                         f", needed by the decoder {percent(count.get('vllm:mm_cache_queries_total', 0), len(taken))}"
                         f" and in its memory {percent(count.get('vllm:mm_cache_hits_total', 0), len(taken))}" if options.pictures else ""),
                      flush=True)
                results[part] = [ids for _, _, _, ids in taken]
        finally:
            cluster.send_signal(signal.SIGTERM)
            cluster.wait(60)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=2, help="CPUs that the whole cluster may use")
    parser.add_argument("--times", type=int, default=20, help="questions of each part, besides the first")
    parser.add_argument("--tokens", type=int, default=1500, help="about so many tokens of text a question")
    parser.add_argument("--pictures", action="store_true", help="share pictures, not text")
    parser.add_argument("--side", type=int, default=448, help="pixels of a picture's sides")
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("up", nargs="*", help="arguments of prism up, behind --")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:options.cpus]
    print(machine(len(cpus)))
    with_cache, without = run(True, options, cpus), run(False, options, cpus)
    for part in PARTS:
        if with_cache[part] != without[part]:
            sys.exit(f"reuse {part} %: answers differ with the cache on and off")
    print(f"all {len(PARTS) * options.times} answers are the same with the cache on and off")


if __name__ == "__main__":
    main()
