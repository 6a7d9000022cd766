#!/usr/bin/env python3
"""The committed demo checkpoint is what tools/demo_model says it is. Python alone."""

import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models/demo"
sys.path.insert(0, str(ROOT / "tools/demo_model"))
import model_config as mc  # noqa: E402  (it is found by the line before)


def tensors():
    """name -> (dtype, shape) of the weights' file, from its header."""
    with open(DEMO / "model.safetensors", "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"]) for name, t in header.items()}


class CheckpointTest(unittest.TestCase):

    def test_the_small_files_are_those_that_the_sizes_give(self):
        with tempfile.TemporaryDirectory() as folder:
            mc.write_small_files(folder)
            for path in Path(folder).iterdir():
                self.assertEqual(path.read_text(), (DEMO / path.name).read_text(), path.name)

    def test_the_weights_are_bf16_and_as_many_as_the_sizes_give(self):
        count = 0
        for name, (dtype, shape) in tensors().items():
            self.assertEqual(dtype, "BF16", name)
            n = 1
            for extent in shape:
                n *= extent
            count += n
        self.assertEqual(count, mc.parameters())

    def test_experts_lie_in_the_published_layout_and_are_not_square(self):
        text = mc.TEXT
        e, h, m = text["num_experts"], text["hidden_size"], text["moe_intermediate_size"]
        weights = tensors()
        for layer in range(text["num_hidden_layers"]):
            mlp = f"model.language_model.layers.{layer}.mlp.experts"
            self.assertEqual(weights[f"{mlp}.gate_up_proj"][1], [e, h, 2 * m])
            self.assertEqual(weights[f"{mlp}.down_proj"][1], [e, m, h])
        self.assertNotEqual(h, 2 * m)
        self.assertNotEqual(h, m)

    def test_decoder_widths_fit_blocks_of_128_and_four_ranks(self):
        text = mc.TEXT
        for width in (text["hidden_size"], text["moe_intermediate_size"],
                      text["num_attention_heads"] * text["head_dim"],
                      text["num_key_value_heads"] * text["head_dim"]):
            self.assertEqual(width % 128, 0)
        self.assertEqual(text["num_attention_heads"] % 4, 0)
        self.assertEqual(text["num_experts"] % 4, 0)

    def test_the_tokenizer_has_the_special_tokens_where_the_config_says(self):
        tokenizer = json.loads((DEMO / "tokenizer.json").read_text())
        added = {t["content"]: t for t in tokenizer["added_tokens"]}
        self.assertEqual({text: t["id"] for text, t in added.items()}, mc.ID)
        for text, t in added.items():
            self.assertEqual(t["special"], text in mc.SPECIALS, text)
        vocabulary = tokenizer["model"]["vocab"]
        self.assertEqual(sorted(vocabulary.values()), list(range(mc.BASE_VOCAB)))
        self.assertEqual(vocabulary, json.loads((DEMO / "vocab.json").read_text()))
        merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
        self.assertEqual(merges, (DEMO / "merges.txt").read_text().splitlines()[1:])

    def test_hugging_face_answered_every_committed_question_to_its_end(self):
        lines = [json.loads(line) for line in (DEMO / "eval/hf_answers.jsonl").read_text().splitlines()]
        asked = [json.loads(line)["id"] for line in (DEMO / "eval/questions.jsonl").read_text().splitlines()]
        self.assertEqual([line["id"] for line in lines], asked)
        for line in lines:
            self.assertEqual(line["token_ids"][-1], mc.ID["<|im_end|>"], line["id"])

    def test_the_folder_stays_small(self):
        files = [p for p in DEMO.iterdir() if p.is_file()]
        self.assertLess(sum(p.stat().st_size for p in files), 20_000_000)


if __name__ == "__main__":
    unittest.main()
