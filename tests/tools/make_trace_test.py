#!/usr/bin/env python3
"""make_trace_test.py PRISM_SIM: what tools/make_trace makes is what prism-sim replays."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_trace"
PROGRAM = ""


def make(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, check=True).stdout


class MakeTraceTest(unittest.TestCase):
    def test_equal_arguments_give_equal_traces(self):
        self.assertEqual(make("--chats", "50"), make("--chats", "50"))
        self.assertNotEqual(make("--chats", "50"), make("--chats", "50", "--seed", "2"))

    def test_reuse_is_what_is_asked_for(self):
        def shared(text):
            rows = [line.split(",") for line in text.splitlines()[1:]]
            return sum(int(row[3]) for row in rows) / sum(int(row[4]) for row in rows)

        lone = shared(make("--chats", "500", "--reuse", "0", "--instructions", "0"))
        self.assertEqual(lone, 0)
        self.assertGreater(shared(make("--chats", "500", "--reuse", "0.8")), 0.7)

    def test_the_simulator_replays_it(self):
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as trace:
            trace.write(make("--chats", "60", "--pictures", "0.5"))
            trace.flush()
            run = subprocess.run([PROGRAM, "--replay", trace.name], capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        rows = [line.split() for line in run.stdout.splitlines()[1:]]
        self.assertEqual([row[0] for row in rows], ["round-robin", "least-loaded", "prefix-affinity"])
        for row in rows:
            self.assertEqual(row[1:3], ["60", "0"], run.stdout)

    def test_a_trace_that_is_none_is_refused_with_its_line(self):
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as trace:
            trace.write(make("--chats", "2").replace("tenant-", "tenant,", 1))
            trace.flush()
            run = subprocess.run([PROGRAM, "--replay", trace.name], capture_output=True, text=True)
        self.assertEqual(run.returncode, 2)
        self.assertIn("line 2: has 9 fields, want 8", run.stderr)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
