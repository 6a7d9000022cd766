"""What Hugging Face transformers takes for bench_engine's prompts and pictures, on the same GPU.

    torch_engine.py --model DIR [--prompts 1024,8192] [--pictures 1024x768,3840x2160] [--rounds 5]

DIR holds a config.json; weights are random, in bf16, made on the device. Attention is PyTorch's scaled_dot_product_attention. Medians after
three rounds to warm up. A picture is timed twice: from patches to embeddings in pinned host memory, as bench_engine does it, and on
the device alone.
"""

import argparse
import statistics
import time

import torch
import transformers

WARM_UP = 3


def measure(call, rounds):
    seconds = []
    for i in range(WARM_UP + rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if i >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), min(seconds)


def show(name, times, per_round, unit):
    median, least = times
    print(f"| {name} | {1e3 * median:.3f} | {1e3 * least:.3f} | {per_round / median:.1f} {unit} |", flush=True)


def build(make):
    """A model of random weights: made without any, then filled on the device."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cuda")
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            weight.data.fill_(1)
        else:
            weight.data.normal_(std=0.02)
    return model.eval()


def reset_rotary(model):
    """Frequencies are buffers, which to_empty() left as they came."""
    for module in model.modules():
        if hasattr(module, "inv_freq") and hasattr(module, "dim"):
            inverse = 1.0 / (module.theta ** (torch.arange(0, module.dim, 2, dtype=torch.float) / module.dim))
            module.inv_freq = inverse.cuda()
        elif hasattr(module, "inv_freq"):
            # of the language model: the value changes no time
            module.inv_freq = torch.logspace(0, -6, module.inv_freq.numel(), device="cuda", dtype=torch.float)


def outputs(result):
    """The tensors of a tower's result, whatever this version of the library wraps them in."""
    if torch.is_tensor(result):
        return [result]
    if isinstance(result, (list, tuple)):
        return [t for item in result for t in outputs(item)]
    named = [getattr(result, "pooler_output", None), getattr(result, "deepstack_features", None)]
    return [t for item in named if item is not None for t in outputs(item)]


@torch.no_grad()
def pictures(config, sizes, rounds):
    from transformers.models.qwen3_vl_moe import modeling_qwen3_vl_moe as moe
    from transformers.models.qwen3_vl import modeling_qwen3_vl as dense
    vision = config.vision_config
    vision._attn_implementation = "sdpa"
    kind = moe.Qwen3VLMoeVisionModel if "moe" in config.model_type else dense.Qwen3VLVisionModel
    tower = build(lambda: kind._from_config(vision, attn_implementation="sdpa"))
    reset_rotary(tower)
    for size in sizes:
        width, height = (int(side) for side in size.split("x"))
        h, w = (height + 16) // 32 * 2, (width + 16) // 32 * 2
        grid = torch.tensor([[1, h, w]])
        host = (torch.rand(h * w, 3 * 2 * 16 * 16, dtype=torch.float) * 2 - 1).pin_memory()
        there = host.cuda().bfloat16()
        grid = grid.cuda()
        back = [t.cpu().pin_memory() for t in outputs(tower(there, grid_thw=grid))]

        def whole():
            result = outputs(tower(host.to("cuda", non_blocking=True).bfloat16(), grid_thw=grid))
            for to, of in zip(back, result):
                to.copy_(of, non_blocking=True)

        copied = sum(t.numel() * t.element_size() for t in back)
        assert copied == h * w // 4 * vision.out_hidden_size * 2 * (1 + len(vision.deepstack_visual_indexes)), copied
        show(f"picture {size}", measure(whole, rounds), 1, "/s")
        show(f"picture {size}, on the device alone", measure(lambda: tower(there, grid_thw=grid), rounds), 1, "/s")


@torch.no_grad()
def prompts(config, lengths, rounds):
    moe = "moe" in config.model_type
    kind = transformers.Qwen3VLMoeForConditionalGeneration if moe else transformers.Qwen3VLForConditionalGeneration
    config._attn_implementation = "sdpa"
    model = build(lambda: kind._from_config(config, attn_implementation="sdpa"))
    reset_rotary(model)
    for length in lengths:
        ids = torch.randint(0, 150000, (1, length), device="cuda")

        def run():
            model.model.rope_deltas = None
            model(input_ids=ids, use_cache=False, logits_to_keep=1)

        show(f"prompt {length}", measure(run, rounds), length, "tok/s")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--model", required=True)
    flags.add_argument("--prompts", default="1024,8192", help='"none": no such rows')
    flags.add_argument("--pictures", default="1024x768,3840x2160", help='"none": no such rows')
    flags.add_argument("--rounds", type=int, default=5)
    args = flags.parse_args()
    config = transformers.AutoConfig.from_pretrained(args.model)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {torch.cuda.get_device_name()}")
    print("| workload | median ms | least ms | value |\n|---|---|---|---|")
    if args.pictures != "none":
        pictures(config, args.pictures.split(","), args.rounds)
    if args.prompts != "none":
        prompts(config, [int(n) for n in args.prompts.split(",")], args.rounds)


if __name__ == "__main__":
    main()
