#!/usr/bin/env python3
"""The reference's cases over HTTP: prompt ids and greedy ids equal, log-probabilities within 1e-4."""
import json
import unittest

from cluster import ORACLE, Cluster, image_part

CASES = ["text_short", "text_system_turns", "text_tools", "text_long", "image_photo", "image_small",
         "image_wide_gray", "image_two_turns"]
OTHER_CASES = ["h_text", "h_image", "h_three", "h_long"]
TOLERANCE = 1e-4


def load(model, case):
    return json.loads((ORACLE / "cases" / model / f"{case}.json").read_text())


def chat_body(case):
    """The case as an OpenAI client would send it."""
    pictures = iter(case.get("images", []))
    messages = []
    for message in case["messages"]:
        message = json.loads(json.dumps(message))
        if isinstance(message.get("content"), list):
            message["content"] = [image_part(next(pictures)) if part["type"] == "image" else part
                                  for part in message["content"]]
        messages.append(message)
    body = {"messages": messages, "temperature": 0, "max_tokens": len(case["greedy"]["token_ids"]),
            "ignore_eos": True, "logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    if "tools" in case:
        body["tools"] = case["tools"]
    return body


class OracleHttpTest(unittest.TestCase):
    def expect_equal(self, cluster, model, name):
        case = load(model, name)
        body = chat_body(case)
        want = case["greedy"]
        answer = cluster.chat(body)
        choice = answer["choices"][0]
        self.assertEqual(answer["prompt_token_ids"], case["prompt_token_ids"])
        self.assertEqual(choice["token_ids"], want["token_ids"])
        self.assertEqual(choice["message"]["content"], want["text"])
        self.assertEqual(choice["finish_reason"], "length")
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        worst = max(abs(a - b) for a, b in zip(logprobs, want["logprobs"], strict=True))
        for token, top in zip(choice["logprobs"]["content"], want["top5"], strict=True):
            ours = [entry["logprob"] for entry in token["top_logprobs"]]
            worst = max([worst] + [abs(a - b) for a, (_, b) in zip(ours, top, strict=True)])
        print(f"{model} {name}: worst log-probability difference {worst:.2g}", flush=True)
        self.assertLessEqual(worst, TOLERANCE)
        self.assertEqual(answer["usage"]["prompt_tokens"], len(case["prompt_token_ids"]))
        self.assertEqual(answer["usage"]["completion_tokens"], len(want["token_ids"]))
        # The stream says the same.
        text, ids, prompt_ids = "", [], None
        for event in cluster.stream(body):
            prompt_ids = event.get("prompt_token_ids") or prompt_ids
            for part in event["choices"]:
                text += part["delta"].get("content") or ""
                ids += part.get("token_ids") or []
        self.assertEqual((text, ids, prompt_ids), (want["text"], want["token_ids"], case["prompt_token_ids"]))

    def test_the_dense_model(self):
        with Cluster("dense-micro") as cluster:
            for name in CASES:
                with self.subTest(name):
                    self.expect_equal(cluster, "dense-micro", name)

    def test_the_mixture_of_experts_on_two_ranks(self):
        with Cluster("moe-micro", tensor_parallel=2) as cluster:
            for name in CASES:
                with self.subTest(name):
                    self.expect_equal(cluster, "moe-micro", name)

    def test_models_of_other_sizes_on_two_and_four_ranks(self):
        for model, ranks in (("other-dense", 2), ("other-moe", 4)):
            with Cluster(model, tensor_parallel=ranks) as cluster:
                for name in OTHER_CASES:
                    with self.subTest(model=model, case=name):
                        self.expect_equal(cluster, model, name)

    def test_transparency_dropped(self):
        for model in ("dense-micro", "moe-micro"):
            with Cluster(model, extra=["--alpha", "drop"]) as cluster:
                self.expect_equal(cluster, model, "image_rgba")


if __name__ == "__main__":
    unittest.main()
