#!/usr/bin/env python3
"""What vLLM's clients say besides OpenAI's fields, through a whole cluster: words and ids that may not come, the prompt's
log-probabilities, stop strings around min_tokens, ignore_eos with tools."""
import math
import unittest

from cluster import Cluster


def body(text="What do you see?", **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 24, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, **fields}


class OpenAiFieldsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("moe-micro", result_cache_bytes=1_000_000)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def choice(self, **fields):
        return self.cluster.chat(body(**fields))["choices"][0]

    def refused(self, **fields):
        status, answer = self.cluster.request("POST", "/v1/chat/completions", body(**fields))
        self.assertEqual(status, 400, answer)
        return answer["error"]["param"], answer["error"]["message"]

    def test_a_bad_word_does_not_come(self):
        answer = self.choice(logprobs=True)
        tokens = [entry["token"] for entry in answer["logprobs"]["content"]]
        # One whose text is whole characters, so that the text names the token.
        word = next(t for t, entry in zip(tokens, answer["logprobs"]["content"])
                    if t.strip() == t and t.isascii() and t.isalnum())
        banned = self.choice(logprobs=True, bad_words=[word])
        spelled = [entry["token"] for entry in banned["logprobs"]["content"]]
        self.assertNotIn(word, spelled)
        self.assertNotIn(" " + word, spelled)
        self.assertEqual(len(banned["token_ids"]), 24)
        self.assertEqual(self.refused(bad_words=["ok", ""]), ("bad_words.1", "bad_words.1: is empty"))
        param, message = self.refused(bad_words=["1" * 33])
        self.assertEqual((param, message), ("bad_words.0", "bad_words.0: has 33 tokens, at most 32"))

    def test_only_allowed_ids_come(self):
        self.assertLessEqual(set(self.choice(allowed_token_ids=[40, 41, 300], temperature=1, seed=3)["token_ids"]), {40, 41, 300})
        param, message = self.refused(allowed_token_ids=[40, 1 << 20])
        self.assertEqual(param, "allowed_token_ids")
        self.assertIn("1048576", message)

    def check_prompt(self, answer, alternatives):
        ids, told = answer["prompt_token_ids"], answer["prompt_logprobs"]
        self.assertEqual(len(told), len(ids))
        self.assertIsNone(told[0])
        for token, entry in zip(ids[1:], told[1:]):
            self.assertEqual(next(iter(entry)), str(token), "the prompt's own token comes first")
            self.assertIn(len(entry), (alternatives, alternatives + 1))
            ranked = sorted((e["rank"], e["logprob"]) for e in entry.values() if e["rank"] is not None)
            self.assertEqual([rank for rank, _ in ranked], list(range(1, alternatives + 1)))
            self.assertEqual([p for _, p in ranked], sorted((p for _, p in ranked), reverse=True))
            for one in entry.values():
                self.assertTrue(math.isfinite(one["logprob"]) and one["logprob"] <= 0)
                self.assertIsInstance(one["decoded_token"], str)

    def test_the_prompts_log_probabilities(self):
        without = self.cluster.chat(body())
        self.assertNotIn("prompt_logprobs", without)
        for alternatives in (0, 3):
            answer = self.cluster.chat(body(prompt_logprobs=alternatives, n=2))
            self.check_prompt(answer, alternatives)
            self.assertEqual(answer["choices"][0]["token_ids"], without["choices"][0]["token_ids"])
            self.assertEqual(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "the prefix cache is not used")
            again = self.cluster.chat(body(prompt_logprobs=alternatives, n=2))
            self.assertTrue(again["prism"]["from_result_cache"])
            self.assertEqual(again["prompt_logprobs"], answer["prompt_logprobs"])
        self.assertEqual(self.refused(prompt_logprobs=1, stream=True)[0], "prompt_logprobs")
        self.assertEqual(self.refused(prompt_logprobs=21)[0], "prompt_logprobs")

    def test_a_stop_string_may_begin_before_min_tokens(self):
        # Two tokens make the stop string; the first is the last of those that do not stop.
        answer = self.choice(logprobs=True)
        tokens = [entry["token"] for entry in answer["logprobs"]["content"]]
        text = answer["message"]["content"]

        def is_found_there(at):
            before, stop = "".join(tokens[:at]), tokens[at] + tokens[at + 1]
            whole = tokens[at] and tokens[at + 1] and "\ufffd" not in stop  # no parts of characters, which wait for the rest
            return whole and text.startswith(before + stop) and text.index(stop) == len(before)
        at = next(filter(is_found_there, range(4, 20)))
        before, stop = "".join(tokens[:at]), tokens[at] + tokens[at + 1]
        for min_tokens in (0, at, at + 1):
            stopped = self.choice(stop=stop, min_tokens=min_tokens)
            self.assertEqual((stopped["message"]["content"], stopped["stop_reason"]), (before, stop))
            self.assertEqual(len(stopped["token_ids"]), at + 2)
        self.assertGreater(len(self.choice(stop=stop, min_tokens=at + 2)["token_ids"]), at + 2, "it may not end there")

    def test_ignore_eos_goes_with_tools_that_need_not_be_called(self):
        tools = [{"type": "function", "function": {"name": "now", "strict": True}}]
        for more in ({}, {"tool_choice": "auto"}, {"parallel_tool_calls": False}, {"tool_choice": "none"}):
            answer = self.choice(tools=tools, **more)
            self.assertEqual((len(answer["token_ids"]), answer["finish_reason"]), (24, "length"))
            self.assertNotIn("tool_calls", answer["message"])
        for choice in ("required", {"type": "function", "function": {"name": "now"}}):
            param, message = self.refused(tools=tools, tool_choice=choice)
            self.assertEqual(param, "ignore_eos")
            self.assertIn("tool_choice", message)
        param, message = self.refused(response_format={"type": "json_object"})
        self.assertEqual(param, "ignore_eos")
        self.assertIn("form of the answer", message)

    def test_a_stop_string_ends_a_choice_and_leaves_the_prompts(self):
        text = self.choice()["message"]["content"]
        stop = text[4:8]
        answer = self.cluster.chat(body(prompt_logprobs=1, stop=stop))
        self.assertEqual(answer["choices"][0]["message"]["content"], text[:text.index(stop)])
        self.assertEqual(answer["choices"][0]["stop_reason"], stop)
        self.check_prompt(answer, 1)


if __name__ == "__main__":
    unittest.main()
