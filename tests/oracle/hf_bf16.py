#!/usr/bin/env python3
"""What Hugging Face's own bf16 run of the reference's cases loses against its float32 run.

Prints, for every case and by the measure of cuda_oracle_test (every row of prompt and answer, the best
eight tokens of the float32 row), the mean and the worst |difference of log-probability|. Needs torch,
transformers and a GPU; weights are made as common/checkpoint/synthetic.h says.

  python3 tests/oracle/hf_bf16.py [MODEL ...]
"""
import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

FOLDER = Path(__file__).parent
MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
BEST = 8


def fnv1a64(name):
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & MASK
    return state


def spread(name, fan_in, tied):
    if name.endswith(".bias"):
        return 0.0, 0.2
    if "norm" in name:
        return 1.0, 0.3
    if name.endswith("embed_tokens.weight"):
        return 0.0, 0.25 if tied else 1.2
    if name.endswith("pos_embed.weight"):
        return 0.0, 0.9
    wide = name.endswith(("lm_head.weight", "mlp.gate.weight"))
    return 0.0, (2.0 if wide else 1.0) * math.sqrt(3.0 / fan_in)


def synthetic(name, shape, fan_in, tied):
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(STEP) + np.uint64(fnv1a64(name))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    mean, amplitude = spread(name, fan_in, tied)
    u = (x >> np.uint64(40)).astype(np.float64)
    values = (mean + amplitude * (u / (1 << 23) - 1.0)).astype(np.float32)
    return torch.from_numpy(values).to(torch.bfloat16).view(*shape)


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    model = transformers.AutoModelForImageTextToText.from_config(config).float().eval()
    tied = config.tie_word_embeddings
    for name, parameter in model.named_parameters():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, rows, columns = parameter.shape  # published input-major
            value = synthetic(name, (experts, columns, rows), columns, tied).transpose(1, 2)
        else:
            value = synthetic(name, tuple(parameter.shape), parameter[0].numel(), tied)
        parameter.data.copy_(value)
    if tied:
        model.tie_weights()
    return model.cuda()


def inputs_of(case, processor):
    keywords = {}
    if case.get("images"):
        keywords["images"] = [Image.open(FOLDER / "images" / name) for name in case["images"]]
    if case.get("videos"):
        videos, metadata = [], []
        for video in case["videos"]:
            source = Image.open(FOLDER / "images" / video["pan_over"]).convert("RGB")
            width, height = video["size"]
            step, frames = video["step"], video["frames"]
            corners = [(step * i, step * i // 2) for i in range(frames)]
            videos.append(np.stack([np.asarray(source.crop((x, y, x + width, y + height))) for x, y in corners]))
            metadata.append({"fps": video["fps"], "total_num_frames": frames, "frames_indices": list(range(frames)),
                             "width": width, "height": height, "duration": frames / video["fps"]})
        keywords.update(videos=videos, video_metadata=metadata, do_sample_frames=False)
    text = case["prompt"].replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    encoded = processor(text=[text], return_tensors="pt", **keywords)
    assert encoded["input_ids"][0].tolist() == case["prompt_token_ids"]
    answer = torch.tensor([case["greedy"]["token_ids"][:-1]])
    encoded["input_ids"] = torch.cat([encoded["input_ids"], answer], 1)
    encoded["attention_mask"] = torch.ones_like(encoded["input_ids"])
    if "mm_token_type_ids" in encoded:
        encoded["mm_token_type_ids"] = torch.cat([encoded["mm_token_type_ids"], torch.zeros_like(answer)], 1)
    return {name: value.cuda() for name, value in encoded.items()}


def log_probabilities(model, inputs):
    model.model.rope_deltas = None
    with torch.no_grad():
        return torch.log_softmax(model(**inputs, use_cache=False).logits[0].double(), -1)


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for name in sys.argv[1:] or ["dense-micro", "moe-micro", "other-dense", "other-moe"]:
        folder = FOLDER / "models" / name
        exact = load(folder)
        rounded = copy.deepcopy(exact)
        for parameter in rounded.parameters():  # not the rotary frequencies, which stay float32
            parameter.data = parameter.data.to(torch.bfloat16)
        processor = transformers.AutoProcessor.from_pretrained(folder)
        means = []
        for path in sorted((FOLDER / "cases" / name).glob("*.json")):
            case = json.loads(path.read_text())
            inputs = inputs_of(case, processor)
            want = log_probabilities(exact, inputs)
            got = log_probabilities(
                rounded, {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in inputs.items()})
            top = want.topk(BEST, -1)
            error = (got.gather(-1, top.indices) - top.values).abs()
            best = got.argmax(-1)
            lead = (top.values[:, 0] - want.gather(-1, best[:, None])[:, 0]).max().item()
            same = (best == top.indices[:, 0]).sum().item()
            means.append(error.mean().item())
            print(f"  {name:12} {path.stem:18} rows {len(want):4}  mean {means[-1]:.5f}  worst {error.max().item():.4f}"
                  f"  same best {same}  widest gap of another {lead:.4f}", flush=True)
        print(f"  {name:12} mean over the cases {sum(means) / len(means):.5f}", flush=True)


if __name__ == "__main__":
    main()
