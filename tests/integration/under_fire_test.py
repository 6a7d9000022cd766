#!/usr/bin/env python3
"""Exactly once under fire: streams survive decoders that die, hang and drain, encoders and Redis that die, and
clients that come back, with the same tokens as undisturbed."""
import unittest

from cluster import SLOW, Cluster
from fire import Fire, Redis, drain, kill, stop_for

STREAMS = 40
TOKENS = 150


class UnderFireTest(unittest.TestCase):
    def test_every_stream_is_as_undisturbed_whatever_dies(self):
        redis = Redis()
        self.addCleanup(redis.close)
        with Cluster("moe-micro", encoders=2, decoders=3, extra=["--redis", f"unix:{redis.path}"]) as cluster:
            fire = Fire(cluster, STREAMS, TOKENS, schema=True)
            alone = fire.undisturbed()
            # The last decoders of the list, so that one that was started again is not struck twice.
            first, second, third = fire.processes("prism-decoder")
            timers = []
            streams = fire.under_fire([
                (0.10, "a decoder is killed", lambda: kill(first)),
                (0.25, "an encoder is killed", lambda: kill(fire.processes("prism-vision-encoder")[0])),
                (0.40, "a decoder is stopped", lambda: timers.append(stop_for(second, 8 * SLOW))),
                (0.60, "redis is killed", redis.kill),
                (0.70, "a decoder drains", lambda: drain(third)),
            ], 240 * SLOW)
            for timer in timers:
                timer.join()
            for fault in fire.faults:
                gaps = fault.silences(streams)
                print(f"{fault.name}: {len(gaps)} streams, longest silence {gaps[-1] if gaps else 0:.2f} s", flush=True)
            self.assertTrue(fire.moves(), "no stream had to go on elsewhere")
            for i, stream in enumerate(streams):
                self.assertIsNone(stream.error, f"stream {i}: {stream.error!r}")
                self.assertEqual(stream.reconnects, 1, f"stream {i}")
                self.assertEqual(stream.answer(), alone[i], f"stream {i} answers differently")


if __name__ == "__main__":
    unittest.main()
