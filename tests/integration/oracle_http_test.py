#!/usr/bin/env python3
"""The reference's cases over HTTP: prompt ids and greedy ids equal, log-probabilities within 1e-4."""
import json
import struct
import unittest

from cluster import ORACLE, Cluster, image_part, rgb_png, video_part

CASES = ["text_short", "text_system_turns", "text_tools", "text_long", "image_photo", "image_small",
         "image_wide_gray", "image_two_turns"]
OTHER_CASES = ["h_text", "h_image", "h_three", "h_long"]
TOLERANCE = 1e-4


def load(model, case):
    return json.loads((ORACLE / "cases" / model / f"{case}.json").read_text())


def frames_of_the_pan():
    """The frames of moe-micro's video_pan as PNG files, put together from the patches that the reference saw."""
    data = (ORACLE / "cases/moe-micro/video_pan.safetensors").read_bytes()
    header_bytes = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + header_bytes])
    tensors = memoryview(data)[8 + header_bytes:]

    def read(name):
        begin, end = header[name]["data_offsets"]
        return tensors[begin:end]
    grid = read("video_grid_thw").cast("q" if header["video_grid_thw"]["dtype"] == "I64" else "i")
    patches = read("pixel_values_videos.u8")
    frames = [[bytearray(grid[2] * 16 * 3) for _ in range(grid[1] * 16)] for _ in range(grid[0] * 2)]
    row = 0
    for t in range(grid[0]):
        for block_y in range(grid[1] // 2):
            for block_x in range(grid[2] // 2):
                for k in range(4):  # the patches of a block of 2 x 2
                    top, left = (2 * block_y + k // 2) * 16, (2 * block_x + k % 2) * 16
                    for channel in range(3):
                        for frame in range(2):
                            for y in range(16):
                                begin = row * 1536 + ((channel * 2 + frame) * 16 + y) * 16
                                line = frames[2 * t + frame][top + y]
                                line[left * 3 + channel:(left + 16) * 3:3] = patches[begin:begin + 16]
                    row += 1
    return [rgb_png(frame) for frame in frames]


def chat_body(case):
    """The case as an OpenAI client would send it."""
    pictures = iter(case.get("images", []))
    messages = []
    for message in case["messages"]:
        message = json.loads(json.dumps(message))
        if isinstance(message.get("content"), list):
            message["content"] = [image_part(next(pictures)) if part["type"] == "image"
                                  else video_part(frames_of_the_pan()[:9]) if part["type"] == "video" else part
                                  for part in message["content"]]
        messages.append(message)
    body = {"messages": messages, "temperature": 0, "max_tokens": len(case["greedy"]["token_ids"]),
            "ignore_eos": True, "logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    if "videos" in case:
        body["mm_processor_kwargs"] = {"fps": [case["videos"][0]["fps"]], "do_sample_frames": False}
    if "tools" in case:
        body["tools"] = case["tools"]
        del body["ignore_eos"]  # it does not go with tools, and this answer meets no end
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
            for name in CASES + ["video_pan"]:
                with self.subTest(name):
                    self.expect_equal(cluster, "dense-micro", name)

    def test_the_mixture_of_experts_on_two_ranks(self):
        with Cluster("moe-micro", tensor_parallel=2) as cluster:
            for name in CASES + ["video_pan"]:
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
