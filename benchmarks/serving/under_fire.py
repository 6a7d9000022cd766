#!/usr/bin/env python3
"""Exactly once under fire, whole: how many of many streams survive, and how long they are silent.

    benchmarks/serving/under_fire.py [--streams 200] [--tokens 150] [-- ARGUMENTS OF prism up ...]

Starts `prism up` with two vision encoders, three decoders, the demo model and a redis-server of its own. Runs the
streams once undisturbed, then again while a decoder is killed with -9, an encoder is killed, a decoder is stopped
(and goes on after 8 s), Redis is killed and a decoder drains, each at a share of all tokens; every client drops its
connection once in its middle and comes back. Prints how many streams answered exactly as undisturbed, and for each
fault how many were given to another decoder and when the last of them was, how long those and all that ran were
without a token: median, 95 % and worst, and what moving must cost: the displaced streams' tokens at the prefill rate
that the cluster showed before, and 0.5 s.

Exit code 1 if a stream failed or answered differently. Only Python's standard library is used.
"""
import argparse
import os
import platform
import sys
import threading
import time

from measuring import quantile  # and where the tests' cluster is found
from cluster import Cluster
from fire import Fire, Redis, drain, kill, stop_for


def prefill_rate(cluster, prompts=12, words=400):
    """Prompt tokens a second of the idle cluster, several prompts at once, each of which nobody has seen."""
    counts = []

    def ask(i):
        text = f"Number {i}. " + " ".join(f"word{i * words + k}" for k in range(words))
        answer = cluster.chat({"messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0,
                               "result_cache": False}, timeout=600)
        counts.append(answer["usage"]["prompt_tokens"])
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(prompts)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=150, help="of each choice")
    parser.add_argument("--schema", action="store_true", help="a JSON schema in a quarter of the streams")
    parser.add_argument("--model", help="a micro checkpoint of tests/oracle/models; the demo model by default")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for all streams under fire")
    parser.add_argument("up", nargs="*", help="more arguments of prism up")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs; {options.streams} streams of "
          f"{options.tokens} tokens a choice", flush=True)
    redis = Redis()
    try:
        extra = ["--redis", f"unix:{redis.path}", "--max-num-seqs", "128", *options.up]
        with Cluster(options.model, encoders=2, decoders=3, extra=extra) as cluster:
            return run(cluster, redis, options)
    finally:
        redis.close()


def run(cluster, redis, options):
    rate = prefill_rate(cluster)
    fire = Fire(cluster, options.streams, options.tokens, options.schema)
    begun = time.monotonic()
    alone = fire.undisturbed()
    print(f"prefill {rate:.0f} tokens/s; undisturbed {time.monotonic() - begun:.1f} s", flush=True)
    first, second, third = fire.processes("prism-decoder")
    timers = []
    begun = time.monotonic()
    streams = fire.under_fire([
        (0.10, "decoder killed", lambda: kill(first)),
        (0.25, "encoder killed", lambda: kill(fire.processes("prism-vision-encoder")[0])),
        (0.40, "decoder stopped", lambda: timers.append(stop_for(second, 8))),
        (0.60, "redis killed", redis.kill),
        (0.70, "decoder drains", lambda: drain(third)),
    ], options.timeout)
    print(f"under fire {time.monotonic() - begun:.1f} s", flush=True)
    for timer in timers:
        timer.join()

    moves = fire.moves()
    ends = [len(fault.moves_before) for fault in fire.faults[1:]] + [len(moves)]
    print(f"{'':16} {'ran':>4} {'moved':>5} {'last after s':>12}   {'silent, moved: p50/p95/max s':>28}   "
          f"{'all: p50/p95/max s':>20}   bound s")
    for fault, end in zip(fire.faults, ends):
        these = moves[len(fault.moves_before):end]
        moved = {generation for generation, _ in these}
        last_move = max((at - fault.struck_unix for _, at in these), default=float("nan"))
        of_moved, of_all = fault.silences(streams, moved), fault.silences(streams)
        displaced = sum(streams[i].prompt_tokens + max(0, last) for i, last in fault.running.items()
                        if streams[i].generation in moved)
        row = ["/".join(f"{quantile(gaps, share):.2f}" for share in (0.5, 0.95, 1)) for gaps in (of_moved, of_all)]
        print(f"{fault.name:16} {len(fault.running):4} {len(moved):5} {last_move:12.2f}   {row[0]:>28}   {row[1]:>20}   "
              f"{displaced / rate + 0.5:.2f}", flush=True)

    failed = [(i, stream.error) for i, stream in enumerate(streams) if stream.error is not None]
    different = [i for i, stream in enumerate(streams) if stream.error is None and stream.answer() != alone[i]]
    came_back = sum(stream.reconnects > 0 for stream in streams)
    print(f"{len(streams) - len(failed) - len(different)} of {len(streams)} as undisturbed, {len(failed)} failed, "
          f"{len(different)} differ; {came_back} came back through Resume")
    for i, error in failed[:10]:
        print(f"stream {i}: {error!r}")
    if different:
        print(f"different: {different}")
    return 1 if failed or different else 0


if __name__ == "__main__":
    sys.exit(main())
