#!/usr/bin/env python3
"""Writes the demo model's folder: weights in bf16 in the published tensor layout, and the small files.

    export.py --state DIR/state.pt --tokenizer DIR --out DIR      from a training state
    export.py --untrained SEED --tokenizer DIR --out DIR          random weights, to wire things up
"""

import argparse
import shutil
from pathlib import Path

import model_config as mc

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def write(tensors, tokenizer, out):
    """tensors: name -> tensor with the experts as transformers keeps them, [E, out, in]."""
    import torch
    from safetensors.torch import save_file
    mc.write_small_files(out)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).resolve() != (out / name).resolve():
            shutil.copyfile(tokenizer / name, out / name)
    published = {}
    for name, t in tensors.items():
        t = t.detach().to(torch.bfloat16).cpu()
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            t = t.transpose(1, 2)
        published[name] = t.contiguous()
    assert sum(t.numel() for t in published.values()) == mc.parameters()
    save_file(published, out / "model.safetensors", metadata={"format": "pt"})


def main():
    import torch
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--state", type=Path)
    parser.add_argument("--untrained", type=int)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.state is not None:
        state = torch.load(args.state, map_location="cpu", weights_only=False)
        tensors = dict(zip(state["names"], state["masters"]))
    else:
        import train
        tensors = dict(train.build_model(torch, args.untrained).named_parameters())
    write(tensors, args.tokenizer, args.out)
    print(f"{args.out}: {sum(f.stat().st_size for f in args.out.iterdir() if f.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
