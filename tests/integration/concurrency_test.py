#!/usr/bin/env python3
"""Many streams at once: each answers as it does alone, and survivors carry on when peers are killed."""
import os
import signal
import threading
import time
import unittest

from cluster import SLOW, Cluster, StreamError, image_part, text_part

STREAMS = 32
PICTURES = ["astronaut.jpg", "coffee.jpg", "rocket.jpg", "tiny.png", "wide_gray.png", "chelsea.png"]


def body(i, max_tokens=24):
    """The i-th request: every other one about one or two pictures; half of them sampled."""
    content = [text_part(f"Question {i}: " + "count the stars, " * (i % 7) + "and name them.")]
    if i % 2 == 0:
        content.insert(0, image_part(PICTURES[i // 2 % len(PICTURES)]))
    if i % 8 == 0:
        content.append(image_part(PICTURES[(i // 8 + 3) % len(PICTURES)]))
    request = {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, "ignore_eos": True,
               "return_token_ids": True, "temperature": 0 if i % 4 < 2 else 0.9, "seed": 1000 + i, "top_p": 0.95}
    return request


def answer_ids(cluster, request, heard=None, i=None):
    """The answer's token ids; the time of each event goes to heard[i]."""
    ids = []
    for event in cluster.stream(request):
        if heard is not None:
            heard[i] = time.monotonic()
        for choice in event["choices"]:
            ids += choice.get("token_ids") or []
    return ids


def run_all(work):
    """Runs work(i) for every stream at once; [result or exception], all ended."""
    results = [None] * STREAMS

    def run(i):
        try:
            results[i] = work(i)
        except Exception as error:  # every kind counts as that stream's outcome
            results[i] = error
    threads = [threading.Thread(target=run, args=(i,)) for i in range(STREAMS)]
    for thread in threads:
        thread.start()
    return threads, results


class ConcurrencyTest(unittest.TestCase):
    def test_thirty_two_streams_answer_as_they_do_alone(self):
        with Cluster("moe-micro", encoders=2, decoders=2) as cluster:
            alone = [answer_ids(cluster, body(i)) for i in range(STREAMS)]
            for ids in alone:
                self.assertEqual(len(ids), 24)
            threads, together = run_all(lambda i: answer_ids(cluster, body(i)))
            for thread in threads:
                thread.join(300 * SLOW)
            self.assertEqual(together, alone)
            code, seconds = cluster.stop()
            self.assertEqual(code, 0)
            self.assertLess(seconds, 20 * SLOW)

    def test_streams_end_and_survivors_serve_when_an_encoder_and_a_decoder_are_killed(self):
        with Cluster("moe-micro", encoders=2, decoders=2, extra=["--no-restart"]) as cluster:
            alone = {i: answer_ids(cluster, body(i, 400)) for i in (0, 1)}
            heard = [0.0] * STREAMS
            threads, results = run_all(lambda i: answer_ids(cluster, body(i, 400), heard, i))
            time.sleep(0.5)
            children = cluster.children()
            victims = [next(pid for pid, name in children.items() if name == program)
                       for program in ("prism-vision-encoder", "prism-decoder")]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            self.assertGreater(sum(result is None for result in results), STREAMS // 2, "killed too late to test")
            # How long the survivor computes is the machine's affair; that nobody waits for the dead is ours.
            while running := [i for i, thread in enumerate(threads) if thread.is_alive()]:
                for i in running:
                    self.assertLess(time.monotonic() - max(killed, heard[i]), 15 * SLOW, f"stream {i} hangs")
                time.sleep(0.05)
            seconds = time.monotonic() - killed
            answered = [r for r in results if isinstance(r, list)]
            failed = [r for r in results if not isinstance(r, list)]
            print(f"{len(answered)} answered, {len(failed)} ended with an error, within {seconds:.1f} s", flush=True)
            for ids in answered:
                self.assertEqual(len(ids), 400)
            for error in failed:
                self.assertIsInstance(error, StreamError)
            self.assertTrue(answered)
            for i, want in alone.items():
                self.assertEqual(answer_ids(cluster, body(i, 400)), want, "a survivor answers differently")


if __name__ == "__main__":
    unittest.main()
