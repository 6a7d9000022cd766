#!/usr/bin/env python3
"""The demo model answers truly, through a whole cluster that was started without naming a model."""
import concurrent.futures
import json
import subprocess
import sys
import unittest

from cluster import DEMO, ROOT, SLOW, Cluster, picture, rgb_png, run_prism, text_part, video_part

sys.path.insert(0, str(ROOT / "tools/demo_model"))
sys.dont_write_bytecode = True
import judge  # noqa: E402  (from the folder just named)

# Of models/demo/eval/questions.jsonl, two or three a task, in both languages. The model is not right about all of them; it must stay
# right about these.
QUESTIONS = """
shapes-038 shapes-033 colours-000 colours-033 sizes-000 sizes-033 count-000 count-061 position-000 position-048 position-033
box-000 box-033 text-000 text-061 chart-000 chart-020 chart-043 compare-000 compare-038 compare-033 clip-000 clip-033
describe-000 describe-033 json-000 json-033 no_picture-000 no_picture-033 talk-000 talk-005
""".split()


def questions():
    with open(DEMO / "eval/questions.jsonl", encoding="utf-8") as lines:
        items = {item["id"]: item for item in map(json.loads, lines)}
    return [items[name] for name in QUESTIONS]


def kind_of(name):
    return "jpeg" if name.endswith(".jpg") else "png"


def body_of(item):
    parts = [picture((DEMO / "eval" / name).read_bytes(), kind_of(name)) for name in item.get("pictures", [])]
    body = {"temperature": 0, "max_tokens": 160}
    if "video" in item:
        frames = item["video"]["frames"]
        parts.append(video_part([(DEMO / "eval" / name).read_bytes() for name in frames], kind_of(frames[0])))
        body["mm_processor_kwargs"] = {"fps": item["video"]["fps"], "do_sample_frames": False}
    return dict(body, messages=[{"role": "user", "content": [*parts, text_part(item["question"])]}])


class DemoModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(model=None)
        cls.url = f"http://127.0.0.1:{cls.cluster.port}"

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def expect_true(self, item, answer):
        self.assertTrue(judge.is_right(item["task"], item["truth"], answer),
                        f"{item['id']}: asked {item['question']!r}, wanted {item['answer']!r}, got {answer!r}")

    def test_the_demo_model_is_what_is_served_by_default(self):
        status, models = self.cluster.request("GET", "/v1/models")
        self.assertEqual((status, [model["id"] for model in models["data"]]), (200, ["demo"]))

    def test_thirty_questions_are_answered_truly(self):
        items = questions()
        self.assertGreaterEqual(len(items), 30)
        self.assertEqual({item["language"] for item in items}, {"en", "zh"})
        self.assertEqual({item["task"] for item in items},
                         {"shapes", "colours", "sizes", "count", "position", "box", "text", "chart", "compare", "clip",
                          "describe", "json", "no_picture", "talk"})
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda item: self.cluster.chat(body_of(item)), items))
        for item, answer in zip(items, answers):
            with self.subTest(item["id"]):
                self.expect_true(item, answer["choices"][0]["message"]["content"])
                self.assertEqual(answer["choices"][0]["finish_reason"], "stop")

    def test_a_streamed_answer_and_prism_ask_say_the_same(self):
        for item in [item for item in questions() if item.get("pictures")][::6]:
            with self.subTest(item["id"]):
                text = "".join(choice["delta"].get("content") or "" for event in self.cluster.stream(body_of(item))
                               for choice in event["choices"])
                self.expect_true(item, text)
                pictures = [DEMO / "eval" / name for name in item["pictures"]]
                asked = run_prism("ask", "--url", self.url, "--temperature", 0, *pictures, item["question"])
                self.assertEqual((asked.returncode, asked.stdout), (0, text + "\n"), asked.stderr)

    def test_prism_ask_shows_a_clip(self):
        item = next(item for item in questions() if "video" in item)
        frames = [DEMO / "eval" / name for name in item["video"]["frames"]]
        asked = run_prism("ask", "--url", self.url, "--fps", item["video"]["fps"], *frames, item["question"])
        self.expect_true(item, asked.stdout)

    def test_a_drawing_of_ones_own(self):
        side, radius = 320, 70
        rows = [bytearray(b"\xff" * (side * 3)) for _ in range(side)]
        for y in range(-radius, radius + 1):
            half = int((radius * radius - y * y) ** 0.5)
            rows[150 + y][(140 - half) * 3:(140 + half) * 3] = bytes([220, 30, 30]) * (2 * half)
        drawn = picture(rgb_png(rows))

        def answer(question):
            return self.cluster.chat({"messages": [{"role": "user", "content": [drawn, text_part(question)]}],
                                      "temperature": 0})["choices"][0]["message"]["content"]
        self.assertTrue(judge.is_right("shapes", {"kind": "shape", "shape": "circle"}, answer("What shape is this?")))
        self.assertTrue(judge.is_right("colours", {"kind": "color", "color": "red"}, answer("What colour is the circle?")))
        self.assertTrue(judge.is_right("count", {"kind": "number", "number": 1}, answer("How many shapes are there?")))

    def test_the_evaluator_counts_what_is_right(self):
        result = subprocess.run([ROOT / "tools/demo_model/evaluate", "--url", self.url, "--limit", "3", "--require", "nothing"],
                                capture_output=True, text=True, timeout=120 * SLOW)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("42 questions in ", result.stdout)
        right = int(next(line.split()[2] for line in result.stdout.splitlines() if line.startswith("all ")))
        self.assertGreaterEqual(right, 30, result.stdout)

    def test_two_ranks_and_two_decoders_answer_alike(self):
        items = questions()[::5]
        with Cluster(model=None, decoders=2, tensor_parallel=2) as split:
            for item in items:
                with self.subTest(item["id"]):
                    want, got = (cluster.chat(body_of(item))["choices"][0]["message"]["content"]
                                 for cluster in (self.cluster, split))
                    self.assertEqual(got, want)


if __name__ == "__main__":
    unittest.main()
