#!/usr/bin/env python3
"""Answers in the form that a request asks for, through a whole cluster with the demo model: JSON, schemas, patterns, choices and
tool calls, streamed and not; and what cannot be enforced is refused with its place."""
import concurrent.futures
import json
import re
import unittest

from cluster import Cluster

try:
    from jsonschema import Draft202012Validator
except ImportError:
    Draft202012Validator = None

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 1, "maxItems": 3},
        "note": {"type": "string", "maxLength": 12},
        "inner": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"],
                                               "additionalProperties": False}]},
    },
    "required": ["colour", "sizes", "inner"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 10}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "now"}},
]


def body(text="What do you see?", **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 200, "temperature": 1, **fields}


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


class ConstrainedOutputTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(model=None)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def refused(self, **fields):
        status, answer = self.cluster.request("POST", "/v1/chat/completions", body(**fields))
        self.assertEqual(status, 400, answer)
        return answer["error"]["param"], answer["error"]["message"]

    def streamed(self, request):
        """(content, calls by index, finish reasons) of a streamed answer; checks the order of each call's pieces."""
        content, calls, finish = "", {}, []
        for event in self.cluster.stream(request):
            for choice in event["choices"]:
                delta = choice["delta"]
                content += delta.get("content") or ""
                for piece in delta.get("tool_calls", []):
                    index = piece["index"]
                    if index not in calls:
                        self.assertEqual(index, len(calls))
                        self.assertEqual(piece["type"], "function")
                        self.assertTrue(piece["id"])
                        calls[index] = {"id": piece["id"], "name": piece["function"]["name"], "arguments": ""}
                    else:
                        self.assertNotIn("id", piece)
                        self.assertNotIn("name", piece["function"])
                    calls[index]["arguments"] += piece["function"]["arguments"]
                if choice["finish_reason"]:
                    finish.append(choice["finish_reason"])
        return content, [calls[i] for i in sorted(calls)], finish

    def judge(self, schema, text):
        value = json.loads(text)
        if Draft202012Validator is not None:
            Draft202012Validator(schema).validate(value)
        return value

    def test_answers_satisfy_the_schema(self):
        requests = [body(seed=seed, response_format=schema_format(SCHEMA)) for seed in range(24)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(self.cluster.chat, requests))
        finished = [a["choices"][0]["message"]["content"] for a in answers if a["choices"][0]["finish_reason"] == "stop"]
        self.assertGreaterEqual(len(finished), 20)
        for text in finished:
            value = self.judge(SCHEMA, text)
            self.assertEqual(list(value), [key for key in SCHEMA["properties"] if key in value], "the schema's order")
        self.assertGreater(len(set(finished)), 10)
        again = self.cluster.chat(requests[0])
        self.assertEqual(again["choices"][0]["message"], answers[0]["choices"][0]["message"], "the same seed, the same answer")

    def test_a_json_object_a_pattern_and_a_choice(self):
        answer = self.cluster.chat(body(temperature=0, response_format={"type": "json_object"}, max_tokens=400))
        if answer["choices"][0]["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(answer["choices"][0]["message"]["content"]), dict)
        for field in ({"guided_regex": "[A-F]{3}-(1|22)"}, {"structured_outputs": {"regex": "[A-F]{3}-(1|22)"}}):
            answer = self.cluster.chat(body(**field))
            self.assertTrue(re.fullmatch("[A-F]{3}-(1|22)", answer["choices"][0]["message"]["content"]))
        content, calls, finish = self.streamed(body(structured_outputs={"choice": ["yes", "no", "mäßig"]}))
        self.assertIn(content, ["yes", "no", "mäßig"])
        self.assertEqual((calls, finish), ([], ["stop"]))

    def check_calls(self, calls):
        for call in calls:
            self.assertIn(call["name"], ["get_weather", "now"])
            if call["name"] == "now":
                self.assertEqual(call["arguments"], "{}")
            else:
                self.judge(TOOLS[0]["function"]["parameters"], call["arguments"])

    def test_tools_that_must_be_called_are(self):
        for seed in range(6):
            request = body(seed=seed, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
            answer = self.cluster.chat(request)["choices"][0]
            self.assertEqual(answer["finish_reason"], "tool_calls")
            self.assertIsNone(answer["message"]["content"])
            whole = answer["message"]["tool_calls"]
            self.assertEqual(len(whole), 1)
            self.assertEqual(whole[0]["type"], "function")
            self.check_calls([whole[0]["function"]])
            content, calls, finish = self.streamed(request)
            self.assertEqual((content, finish), ("", ["tool_calls"]))
            self.assertEqual([(c["name"], c["arguments"]) for c in calls],
                             [(w["function"]["name"], w["function"]["arguments"]) for w in whole])

    def test_a_named_tool_is_the_one_that_is_called(self):
        request = body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_weather"}}, seed=5)
        answer = self.cluster.chat(request)["choices"][0]
        self.assertEqual({c["function"]["name"] for c in answer["message"]["tool_calls"]}, {"get_weather"})

    def test_several_calls_may_follow_each_other(self):
        counts = set()
        for seed in range(12):
            content, calls, finish = self.streamed(body(seed=seed, tools=TOOLS, tool_choice="required", max_tokens=400))
            if finish == ["tool_calls"]:
                self.check_calls(calls)
                counts.add(len(calls))
        self.assertTrue(counts)

    def test_in_auto_the_model_may_answer_with_text(self):
        content, calls, finish = self.streamed(body("Hello", temperature=0, tools=TOOLS))
        self.assertTrue(content or calls)
        self.check_calls(calls)
        self.assertEqual(finish, ["tool_calls" if calls else "stop"])

    def test_metrics_tell_what_forms_cost(self):
        def seen():
            return [self.cluster.metric(*sample) for sample in (
                ("router", 'prism_grammar_total{result="compiled"}'),
                ("router", 'prism_grammar_total{result="cached"}'),
                ("decoder", 'prism_grammar_total{result="compiled"}'),
                ("decoder", 'prism_grammar_total{result="cached"}'))]

        def rows():
            return self.cluster.metric("decoder", "prism_engine_constrained_rows_sum")
        choice = {"structured_outputs": {"choice": ["a form of this test alone"]}}
        grammars, before = seen(), rows()
        for _ in range(2):
            tokens = self.cluster.chat(body(**choice))["usage"]["completion_tokens"]
            # Each token of the answer was a row of some step.
            self.assertEqual(rows() - before, tokens)
            before += tokens
        self.assertEqual([now - then for now, then in zip(seen(), grammars)], [1, 1, 1, 1])
        for sample in ('prism_token_mask_total{result="computed"}', 'prism_token_mask_total{result="cached"}',
                       "prism_token_mask_seconds_count"):
            self.assertGreater(self.cluster.metric("decoder", sample), 0)

    def test_what_cannot_be_enforced_is_refused_with_its_place(self):
        param, message = self.refused(response_format=schema_format({"type": "object", "properties": {"a": {"not": {}}}}))
        self.assertEqual(param, "response_format.json_schema.schema")
        self.assertIn('#/properties/a/not: the keyword "not" is not supported', message)
        param, message = self.refused(structured_outputs={"regex": "a(?=b)"})
        self.assertEqual(param, "structured_outputs.regex")
        self.assertIn("look-around", message)
        tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", "minProperties": 1}}}
        param, message = self.refused(tools=[tool])
        self.assertEqual(param, "tools.0.function.parameters")
        self.assertIn("minProperties", message)
        self.assertEqual(self.refused(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "x"}})[0], "tool_choice")
        self.assertEqual(self.refused(guided_json={"type": "array", "uniqueItems": True})[0], "guided_json")

    def test_a_history_of_calls_can_be_continued(self):
        call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
        request = {"messages": [{"role": "user", "content": "What time is it?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                                {"role": "tool", "tool_call_id": "call_1", "content": "12:30"}],
                   "tools": TOOLS, "max_tokens": 50, "temperature": 0}
        self.assertIn(self.cluster.chat(request)["choices"][0]["finish_reason"], ["stop", "length", "tool_calls"])


if __name__ == "__main__":
    unittest.main()
