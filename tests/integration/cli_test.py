#!/usr/bin/env python3
"""`prism ask` and `prism status` against a running cluster; `prism up` through deaths and its own end."""
import json
import os
import signal
import threading
import time
import unittest

from cluster import ORACLE, SLOW, Cluster, image_part, run_prism, text_part


def eventually(condition, seconds=15):
    deadline = time.monotonic() + seconds * SLOW
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


class CliTest(unittest.TestCase):
    def test_ask_prints_the_answer_that_the_api_gives(self):
        with Cluster("moe-micro") as cluster:
            url = f"http://127.0.0.1:{cluster.port}"
            pictures = [ORACLE / "images/coffee.jpg", ORACLE / "images/tiny.png"]
            asked = run_prism("ask", "--url", url, "--max-tokens", 12, "--temperature", 0, *pictures, "Compare them.")
            self.assertEqual(asked.returncode, 0, asked.stderr)
            answer = cluster.chat({"messages": [{"role": "user", "content": [
                image_part("coffee.jpg"), image_part("tiny.png"), text_part("Compare them.")]}],
                "max_tokens": 12, "temperature": 0})
            self.assertEqual(asked.stdout, answer["choices"][0]["message"]["content"] + "\n")

            wrong = run_prism("ask", "--url", url, "--max-tokens", 12, ORACLE / "images/README.md", "What is it?")
            self.assertEqual(wrong.returncode, 1)
            self.assertIn("README.md: is no JPEG, PNG or WebP picture", wrong.stderr)
            many = run_prism("ask", "--url", url, "--max-tokens", 12, *([ORACLE / "images/tiny.png"] * 9), "What are they?")
            self.assertEqual(many.returncode, 1)
            self.assertIn("9", many.stderr)

    def test_status_shows_models_and_replicas(self):
        with Cluster("moe-micro", encoders=2) as cluster:
            status = run_prism("status", "--state-file", cluster.state_file)
            self.assertEqual(status.returncode, 0, status.stderr)
            lines = status.stdout.splitlines()
            self.assertEqual(sum(line.startswith("vision-encoder  ") and " ready" in line for line in lines), 2)
            self.assertEqual(sum(line.startswith("decoder  ") and " ready" in line for line in lines), 1)
            self.assertTrue(any(line.startswith("model ") and "moe-micro" in line for line in lines), status.stdout)
        gone = run_prism("status", "--url", f"http://127.0.0.1:{cluster.port}")
        self.assertEqual(gone.returncode, 1)
        self.assertIn("Connection refused", gone.stderr)

    def test_every_program_is_started_again_and_the_cluster_recovers(self):
        question = {"messages": [{"role": "user", "content": [image_part("tiny.png"), text_part("What?")]}],
                    "max_tokens": 6, "temperature": 0}
        with Cluster("moe-micro") as cluster:
            want = cluster.chat(question)["choices"]
            for program in ("prism-decoder", "prism-vision-encoder", "prism-router", "prism-gateway"):
                with self.subTest(program):
                    victim = next(pid for pid, name in cluster.children().items() if name == program)
                    os.kill(victim, signal.SIGKILL)

                    def answers():
                        try:
                            status, answer = cluster.request("POST", "/v1/chat/completions", question, timeout=10)
                            return status == 200 and answer["choices"] == want
                        except (OSError, ValueError):
                            return False
                    self.assertTrue(eventually(answers, 20))
                    self.assertNotIn(victim, cluster.children())

    def test_a_signal_lets_streams_end_and_leaves_nothing(self):
        with Cluster("moe-micro") as cluster:
            outcome = []

            def stream():
                ids = []
                for event in cluster.stream({"messages": [{"role": "user", "content": "Tell."}], "max_tokens": 200,
                                             "ignore_eos": True, "return_token_ids": True}):
                    for choice in event["choices"]:
                        ids += choice.get("token_ids") or []
                    if len(ids) > 2:
                        begun.set()
                outcome.append(len(ids))
            begun = threading.Event()
            thread = threading.Thread(target=stream)
            thread.start()
            self.assertTrue(begun.wait(30 * SLOW))
            children = cluster.children()
            self.assertEqual(len(children), 4)
            code, seconds = cluster.stop()
            thread.join(10 * SLOW)
            self.assertEqual((code, outcome), (0, [200]))
            self.assertLess(seconds, 20 * SLOW)
            for pid in children:
                self.assertFalse(os.path.exists(f"/proc/{pid}"), f"{pid} {children[pid]} is left")
            self.assertFalse(cluster.state_file.exists())

    def test_the_state_file_says_where_everything_is(self):
        with Cluster("moe-micro") as cluster:
            state = json.loads(cluster.state_file.read_text())
            self.assertEqual(state["url"], f"http://127.0.0.1:{cluster.port}")
            self.assertEqual({program["pid"] for program in state["programs"]}, set(cluster.children()))


if __name__ == "__main__":
    unittest.main(verbosity=1)
