#!/usr/bin/env python3
"""Asks transformers' own, unpatched model in float32 what the exported demo model answers.

    hf_evaluate.py --model DIR --check                      fast_model.py computes what transformers computes
    hf_evaluate.py --model DIR --fresh 2400 --out FILE      accuracy per task on fresh questions
    hf_evaluate.py --model DIR --eval DIR --out FILE        answers to the committed questions
    hf_evaluate.py --model DIR --ablate 60 --out FILE       accuracy without what the architecture has

The pictures go through the checkpoint's processor and chat template. A clip's placeholder becomes its
timestamped frames alone, as the published models were trained; transformers 5.10 and later leave one more
pair of markers around them.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import batches
import model_config as mc


def wilson(right, n, z=1.96):
    """The 95 % Wilson score interval of a share."""
    if n == 0:
        return 0.0, 1.0
    p, d = right / n, 1 + z * z / n
    mid, half = (p + z * z / (2 * n)) / d, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return max(0.0, mid - half), min(1.0, mid + half)


class Reference:
    """transformers' model and processor of a folder, float32, greedy."""

    def __init__(self, folder, device="cuda"):
        import torch
        import transformers
        transformers.utils.logging.set_verbosity_error()
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        self.torch = torch
        self.model = transformers.Qwen3VLMoeForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32).to(device).eval()
        for module in self.model.modules():
            if hasattr(module, "inv_freq"):
                assert module.inv_freq.dtype == torch.float32
        self.processor = transformers.AutoProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"

    def encode(self, asked):
        """asked: (images, clip or None, fps, question) of each row. Returns the model's inputs, padded on the
        left."""
        import numpy as np
        texts, images, clips, about = [], [], [], []
        for pictures, clip, fps, question in asked:
            content = [{"type": "image"} for _ in pictures] + ([{"type": "video"}] if clip else [])
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content + [{"type": "text", "text": question}]}], tokenize=False,
                add_generation_prompt=True)
            texts.append(text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>"))
            images.extend(pictures)
            if clip:
                clips.append(np.stack([np.asarray(f) for f in clip]))
                about.append({"fps": fps, "total_num_frames": len(clip),
                              "frames_indices": list(range(len(clip))), "width": clip[0].width,
                              "height": clip[0].height, "duration": len(clip) / fps})
        more = {}
        if images:
            more["images"] = images
        if clips:
            more.update(videos=clips, video_metadata=about, do_sample_frames=False)
        return self.processor(text=texts, return_tensors="pt", padding=True, **more).to(self.model.device)

    def answers(self, asked, new_tokens=128):
        """The greedy answer of each row: its text and its token ids, the end token included."""
        torch = self.torch
        inputs = self.encode(asked)
        self.model.model.rope_deltas = None
        with torch.no_grad():
            out = self.model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)
        said = []
        for row in out[:, inputs["input_ids"].shape[1]:].tolist():
            ends = [i for i, t in enumerate(row) if t in mc.GENERATION["eos_token_id"]]
            row = row[:ends[0] + 1] if ends else row
            said.append((self.processor.tokenizer.decode(row, skip_special_tokens=True), row))
        return said


def fresh(job):
    """One fresh example of a task; runs in a pool."""
    import tasks
    from pictures import stream
    family, task, i = job
    rng = stream(family, f"{task}.{i}")
    example = tasks.make_example(rng, task, "zh" if i % 5 < 2 else "en", None, 1)
    turn = example.turns[0]
    return {"task": task, "language": example.language, "question": turn.question, "answer": turn.answer,
            "truth": turn.truth, "asked": (example.images, example.video, example.fps, turn.question)}


def ask_all(reference, items, rows):
    """Fills in what the reference says to each item; items of like length go together."""
    import judge
    order = sorted(range(len(items)), key=lambda i: (items[i]["task"], bool(items[i]["asked"][1])))
    at = 0
    while at < len(order):
        some = [i for i in order[at:at + rows] if items[i]["task"] == items[order[at]]["task"]]
        at += len(some)
        for i, (text, ids) in zip(some, reference.answers([items[i]["asked"] for i in some])):
            items[i]["said"], items[i]["ids"] = text, ids
            items[i]["right"] = bool(judge.is_right(items[i]["task"], items[i]["truth"], text))


def table(items):
    """Accuracy per task with its interval, and what belongs to the issue's thresholds apart."""
    out = {}
    for item in items:
        groups = [item["task"], "all"]
        if item["task"] == "text":
            groups.append("text up to 6" if len(item["answer"]) <= 6 else "text of 7 and 8")
        if item["task"] == "count" and item["truth"].get("number") is not None:
            groups.append("count up to 6" if item["truth"]["number"] <= 6 else "count of 7 and 8")
        for group in groups:
            for key in (group, f"{group} ({item['language']})"):
                out.setdefault(key, [0, 0])
                out[key][0] += item["right"]
                out[key][1] += 1
    return {k: {"right": r, "of": n, "accuracy": round(r / n, 4),
                "interval": [round(x, 4) for x in wilson(r, n)]} for k, (r, n) in sorted(out.items())}


def show(result):
    for name, row in result.items():
        print(f"{name:24s} {row['right']:5d} / {row['of']:5d}  {row['accuracy']:7.2%}  "
              f"[{row['interval'][0]:.2%}, {row['interval'][1]:.2%}]", flush=True)


def check(reference, folder):
    """Logits at every answer position of generated batches: all segments at once here, one question there."""
    import random
    import mmap
    import tasks
    import fast_model
    torch = reference.torch
    encode = batches.Encoder(folder / "tokenizer.json")
    buffer = mmap.mmap(-1, batches.SLOT_BYTES)
    worst, compared, scale = 0.0, 0, 0.0
    for trial, (task, size) in enumerate([
            ("sitting", (192, 160)), ("sitting", (320, 224)), ("text", (256, 128)), ("compare", (160, 160)),
            ("clip", (128, 160)), ("talk", (128, 128)), ("count", (512, 512))]):
        rng = random.Random(trial)
        example = (tasks.make_sitting(rng, "en", size, 4) if task == "sitting" else
                   tasks.make_example(rng, task, "zh", size))

        class Plain(random.Random):
            def random(self):
                return 0.99
        w, h = size[0] // 16, size[1] // 16
        row, said = batches.add_row(example, Plain(1), encode, h // 2, w // 2, 0)
        import numpy as np
        images = [np.asarray(i)[None] for i in example.images]
        clips = []
        if example.video:
            frames = [np.asarray(f) for f in example.video]
            frames += frames[-1:] * (len(frames) % 2)
            clips = [np.stack(frames[i:i + 2]) for i in range(0, len(frames), 2)]
        info = batches.pack([row], [(t, 0) for t in said], images, clips, h, w, buffer)
        flat = torch.frombuffer(buffer, dtype=torch.uint8)[:info["bytes"]].to(reference.model.device)
        batch = batches.to_device(flat, info)
        with torch.no_grad():
            states, _ = fast_model.forward(reference.model, batch)
            mine = reference.model.lm_head(states.view(-1, states.shape[-1])[batch["label_at"]])
        for k, turn in enumerate(said):
            inputs = reference.encode([(example.images, example.video, example.fps, turn.question)])
            n = inputs["input_ids"].shape[1]
            answer = torch.tensor([encode(turn.answer + "<|im_end|>")], device=inputs["input_ids"].device)
            assert batch["label_id"][batch["label_turn"] == k].tolist() == answer[0].tolist()
            inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(answer)], 1)
            reference.model.model.rope_deltas = None
            with torch.no_grad():
                theirs = reference.model(**inputs, use_cache=False).logits[0, n - 1:-1]
            part = mine[batch["label_turn"] == k]
            worst = max(worst, (part - theirs).abs().max().item())
            scale = max(scale, theirs.abs().max().item())
            compared += 1
        print(f"check: {task} {size}: {n} prompt tokens, worst difference so far {worst:.2e}", flush=True)
    print(f"check: {compared} questions, logits up to {scale:.1f} differ by at most {worst:.2e}")
    if worst > 1e-3 * max(1.0, scale):
        raise SystemExit("check: the fast forward pass does not compute what transformers computes")


def ablations(model):
    """name -> a function that breaks one thing and returns the function that mends it."""
    language, visual = model.model.language_model, model.model.visual

    def no_deepstack():
        kept = language._deepstack_process
        language._deepstack_process = lambda hidden_states, *_: hidden_states
        return lambda: setattr(language, "_deepstack_process", kept)

    def chunked():
        import torch
        rotary = language.rotary_emb
        kept = rotary.recomposition_frequencies
        t, h, _ = mc.TEXT["rope_scaling"]["mrope_section"]

        def recompose(freq):
            joined = torch.cat([freq[0, ..., :t], freq[1, ..., t:t + h], freq[2, ..., t + h:]], -1)
            return torch.cat([joined, joined], -1)
        rotary.recomposition_frequencies = recompose
        return lambda: setattr(rotary, "recomposition_frequencies", kept)

    def raster():
        import torch
        kept = visual.patch_embed.forward
        grids = {}
        hook = visual.register_forward_pre_hook(
            lambda _m, a, k: grids.update(now=k["grid_thw"] if "grid_thw" in k else a[1]), with_kwargs=True)

        def forward(pixels):
            # The patches in raster order, all that follows as if they were in merge-block order.
            parts, at = [], 0
            for t, h, w in grids["now"].tolist():
                x = pixels[at:at + t * h * w].view(t, h // 2, w // 2, 2, 2, -1)
                parts.append(x.permute(0, 1, 3, 2, 4, 5).reshape(t * h * w, -1))
                at += t * h * w
            return kept(torch.cat(parts))
        visual.patch_embed.forward = forward

        def mend():
            visual.patch_embed.forward = kept
            hook.remove()
        return mend
    return {"as trained": lambda: (lambda: None), "without DeepStack": no_deepstack,
            "chunked M-RoPE": chunked, "raster patch order": raster}


def committed(folder):
    """The items of the committed evaluation set."""
    from PIL import Image
    items = []
    for line in (folder / "questions.jsonl").read_text().splitlines():
        q = json.loads(line)
        load = lambda names: [Image.open(folder / n).convert("RGB") for n in names]
        clip = q.get("video") or {"frames": [], "fps": 0.0}
        items.append(dict(q, asked=(load(q.get("pictures") or []), load(clip["frames"]) or None, clip["fps"],
                                    q["question"])))
    return items


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--fresh", type=int)
    parser.add_argument("--eval", type=Path)
    parser.add_argument("--ablate", type=int)
    parser.add_argument("--family", default="fresh")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--wrong", type=Path, help="where to write what was answered wrongly")
    args = parser.parse_args()
    began = time.time()
    made, per = [], 0
    if args.fresh or args.ablate:
        import tasks
        count = args.fresh or args.ablate * len(tasks.TASKS)
        per = math.ceil(count / len(tasks.TASKS))
        jobs = [(args.family, t, i) for t in tasks.TASKS for i in range(per)]
        with multiprocessing.get_context("fork").Pool() as pool:
            made = pool.map(fresh, jobs, chunksize=16)
        print(f"{len(made)} fresh questions after {time.time() - began:.0f} s", flush=True)
    reference = Reference(args.model)
    print(f"model loaded after {time.time() - began:.0f} s", flush=True)
    if args.check:
        check(reference, args.model)
    if args.fresh:
        ask_all(reference, made, args.rows)
        result = table(made)
        show(result)
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
        if args.wrong:
            with open(args.wrong, "w") as f:
                for item in made:
                    if not item["right"]:
                        keep = {k: item[k] for k in ("task", "language", "question", "answer", "said")}
                        f.write(json.dumps(keep, ensure_ascii=False) + "\n")
    if args.eval:
        items = committed(args.eval)
        ask_all(reference, items, args.rows)
        show(table(items))
        with open(args.out, "w") as f:
            for item in items:
                f.write(json.dumps({"id": item["id"], "answer": item["said"], "token_ids": item["ids"]},
                                   ensure_ascii=False) + "\n")
    if args.ablate:
        result = {}
        for name, wreck in ablations(reference.model).items():
            mend = wreck()
            ask_all(reference, made, args.rows)
            mend()
            result[name] = table(made)
            print(f"\n{name}")
            show({k: v for k, v in result[name].items() if "(" not in k})
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"done after {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
