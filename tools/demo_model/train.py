#!/usr/bin/env python3
"""Trains the demo model on one GPU, in pieces that can be stopped and resumed.

    train.py --work DIR --tokenizer tokenizer.json [--minutes 16.5] [--piece 7.2] [--resume]

--minutes is the whole training's length and sets the schedule: a warm-up, a constant rate, and a linear decay
over the last part; --piece ends this call earlier, and --resume goes on from DIR/state.pt, which is written
every minute and at the end. The tasks' shares are those of MIXES, or of a JSON file (--mix) that is read
again while training. DIR/log.txt says every 15 seconds how it goes and every minute how many answers of each task
were right, to the letter, before the batch was trained on: every picture is new, so that is accuracy on
held-out data.

A step takes --micro batches. Should the generators fall behind, batches already seen are used again.
"""

import argparse
import json
import math
import queue
import random
import re
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import batches
import model_config as mc

# From which share of the training on, in what shares the tasks are drawn: what lags gets more room.
MIXES = (
    (0.00, {"sitting": 0.36, "shapes": 0.02, "colours": 0.02, "sizes": 0.03, "count": 0.06, "position": 0.04,
            "box": 0.05, "text": 0.16, "chart": 0.12, "compare": 0.10, "clip": 0.06, "describe": 0.015,
            "json": 0.02, "no_picture": 0.01, "talk": 0.015}),
    (0.38, {"sitting": 0.24, "shapes": 0.02, "colours": 0.02, "sizes": 0.03, "count": 0.06, "position": 0.03,
            "box": 0.05, "text": 0.19, "chart": 0.25, "compare": 0.12, "clip": 0.03, "describe": 0.01,
            "json": 0.01, "no_picture": 0.01, "talk": 0.015}),
    (0.61, {"sitting": 0.20, "shapes": 0.02, "colours": 0.02, "sizes": 0.03, "count": 0.07, "position": 0.02,
            "box": 0.06, "text": 0.21, "chart": 0.27, "compare": 0.12, "clip": 0.02, "describe": 0.01,
            "json": 0.01, "no_picture": 0.01, "talk": 0.015}),
    (0.84, {"sitting": 0.20, "shapes": 0.02, "colours": 0.02, "sizes": 0.03, "count": 0.07, "position": 0.02,
            "box": 0.12, "text": 0.19, "chart": 0.24, "compare": 0.12, "clip": 0.02, "describe": 0.015,
            "json": 0.015, "no_picture": 0.01, "talk": 0.015}),
)


def mix_at(share):
    """The tasks' shares once that share of the training is done."""
    return [shares for start, shares in MIXES if start <= share][-1]


def build_model(torch, seed):
    """The model with fresh weights, bf16: the form that is exported."""
    import transformers
    torch.manual_seed(seed)
    fields = json.loads(json.dumps(mc.CONFIG))
    for name in ("architectures", "model_type", "transformers_version"):
        del fields[name]
    config = transformers.Qwen3VLMoeConfig(**fields)
    model = transformers.Qwen3VLMoeForConditionalGeneration(config).float()
    depth_v, depth_t = mc.VISION["depth"], mc.TEXT["num_hidden_layers"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(".bias"):
                p.zero_()
            elif "norm" in name:
                p.fill_(1.0)
            elif name.endswith("embed_tokens.weight"):
                p.normal_(0, 0.5)
            elif name.endswith("pos_embed.weight"):
                p.normal_(0, 0.3)
            else:
                fan_in = p.shape[-1] if "patch_embed" not in name else p[0].numel()
                std = fan_in ** -0.5
                if name.endswith(("attn.proj.weight", "linear_fc2.weight")) and "merger" not in name:
                    std /= math.sqrt(2 * depth_v)
                elif name.endswith(("o_proj.weight", "experts.down_proj")):
                    std /= math.sqrt(2 * depth_t)
                elif name.endswith(("lm_head.weight", "mlp.gate.weight")):
                    std *= 0.5
                elif "deepstack_merger_list" in name and name.endswith("linear_fc2.weight"):
                    std *= 0.5
                p.normal_(0, std)
    return model


class Optimizer:
    """Float32 masters of the model's bf16 weights: Muon for the matrices of blocks, AdamW for all else."""

    def __init__(self, torch, model, lr_muon, lr_adam, decay):
        self.torch, self.model, self.lr_muon, self.lr_adam, self.decay = torch, model, lr_muon, lr_adam, decay
        self.params = [p for _, p in model.named_parameters()]
        self.names = [n for n, _ in model.named_parameters()]
        self.masters = [p.detach().float().clone() for p in self.params]
        self.matrix = [i for i, n in enumerate(self.names) if self._is_matrix(n)]
        self.other = [i for i in range(len(self.params)) if i not in set(self.matrix)]
        self.momentum = {i: torch.zeros_like(self.masters[i]) for i in self.matrix}
        others = [self.masters[i] for i in self.other]
        self.adam = torch.optim.AdamW(
            [{"params": [m for m in others if m.dim() > 1], "weight_decay": 0.01},
             {"params": [m for m in others if m.dim() == 1], "weight_decay": 0.0}],
            lr=torch.tensor(lr_adam, device=self.masters[0].device), betas=(0.9, 0.97), eps=1e-10, fused=True,
            capturable=True)
        for group in self.adam.param_groups:
            group["lr"] = group["lr"].clone()
        # Static places for the graph: gradients, the rate's factor and the gradient's norm.
        self.grads = [torch.zeros_like(p) for p in self.params]
        for p, g in zip(self.params, self.grads):
            p.grad = g
        for i in self.other:
            self.masters[i].grad = torch.zeros_like(self.masters[i])
        self.factor = torch.zeros((), device=self.masters[0].device)
        self.norm = torch.zeros((), device=self.masters[0].device)
        self.graph, self.calls = None, 0
        # (parameter, how to cut it into matrices): those of one shape go through the iteration together.
        self.groups = {}
        for i in self.matrix:
            m = self._cut(i, self.masters[i])
            self.groups.setdefault((min(m.shape[1:]), max(m.shape[1:])), []).append(i)

    @staticmethod
    def _is_matrix(name):
        return name.endswith(("qkv.weight", "attn.proj.weight", "linear_fc1.weight", "linear_fc2.weight",
                              "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight",
                              "experts.gate_up_proj", "experts.down_proj"))

    def _cut(self, i, t):
        """A parameter as matrices [n, rows, cols]: the tower's q, k and v, an expert's gate and up apart."""
        name = self.names[i]
        if name.endswith("qkv.weight"):
            return t.view(3, -1, t.shape[-1])
        if name.endswith("gate_up_proj"):
            return t.view(2 * t.shape[0], -1, t.shape[-1])
        return t if t.dim() == 3 else t.unsqueeze(0)

    def orthogonal(self, g):
        """Newton-Schulz: about the nearest matrices with orthonormal rows, in bf16."""
        torch = self.torch
        x = g.to(torch.bfloat16)
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
        return x

    def step(self, factor):
        """One update. Its shapes never change, so from the fourth on it is one replayed CUDA graph."""
        torch = self.torch
        self.factor.fill_(factor)
        if self.graph is not None:
            self.graph.replay()
        elif self.calls < 3:
            self._update()
        else:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # The copier's thread goes on allocating meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._update()
            self.graph = graph
            self.graph.replay()
        self.calls += 1
        return self.norm

    def _update(self):
        torch = self.torch
        with torch.no_grad():
            grads = [g.float() for g in self.grads]
            norm = torch.stack(torch._foreach_norm(grads)).norm()
            self.norm.copy_(norm)
            torch._foreach_mul_(grads, 1.0 / norm.clamp(min=1.0))
            torch._foreach_copy_([self.masters[i].grad for i in self.other], [grads[i] for i in self.other])
            for group in self.adam.param_groups:
                group["lr"].copy_(self.factor * self.lr_adam)
            self.adam.step()
            keep = [self.momentum[i] for i in self.matrix]
            new = [grads[i] for i in self.matrix]
            torch._foreach_mul_(keep, 0.95)
            torch._foreach_add_(keep, new)
            nesterov = dict(zip(self.matrix, torch._foreach_add(new, keep, alpha=0.95)))
            lr = self.factor * self.lr_muon
            torch._foreach_mul_([self.masters[i] for i in self.matrix], 1 - lr * self.decay)
            for (low, high), members in self.groups.items():
                parts = [self._cut(i, nesterov[i]) for i in members]
                flip = [p.shape[1] > p.shape[2] for p in parts]
                stack = torch.cat([p.mT if f else p for p, f in zip(parts, flip)])
                stack = self.orthogonal(stack).float() * (0.2 * math.sqrt(high) * lr)
                at = 0
                for i, p, f in zip(members, parts, flip):
                    u = stack[at:at + p.shape[0]]
                    at += p.shape[0]
                    self._cut(i, self.masters[i]).sub_(u.mT if f else u)
            torch._foreach_copy_(self.params, self.masters)
            torch._foreach_zero_(self.grads)

    def state(self):
        return {"names": self.names, "masters": self.masters, "momentum": self.momentum,
                "adam": self.adam.state_dict()}

    def load(self, state):
        """Masters always; the rest only if it is there (weights alone may have been carried over)."""
        torch = self.torch
        by_name = dict(zip(state["names"], state["masters"]))
        with torch.no_grad():
            for n, m, p in zip(self.names, self.masters, self.params):
                m.copy_(by_name[n])
                p.copy_(m)
            if "momentum" in state:
                for i, m in state["momentum"].items():
                    self.momentum[i].copy_(m)
                self.adam.load_state_dict(state["adam"])
                for group in self.adam.param_groups:
                    group["lr"] = self.torch.tensor(self.lr_adam, device=self.factor.device)
        return "momentum" in state


class Copier(threading.Thread):
    """Brings filled slots to the device and hands the slots back."""

    def __init__(self, torch, feed, depth):
        super().__init__(daemon=True)
        self.torch, self.feed, self.out, self.generating = torch, feed, queue.Queue(depth), 0.0
        self.flats = [torch.frombuffer(b, dtype=torch.uint8) for b in feed.buffers]
        self.pinned = all(int(torch.cuda.cudart().cudaHostRegister(f.data_ptr(), f.numel(), 0)) == 0
                          for f in self.flats)
        self.stream = torch.cuda.Stream()

    def run(self):
        torch = self.torch
        while True:
            slot, info = self.feed.ready.get()
            with torch.cuda.stream(self.stream):
                flat = self.flats[slot][:info["bytes"]].to("cuda", non_blocking=True)
            self.stream.synchronize()
            self.feed.free.put(slot)
            self.generating += info["seconds"]
            self.out.put((flat, info))


def box_overlap(a, b):
    """Intersection over union of the first four numbers of two texts; 0 if either has fewer."""
    p, q = ([int(x) for x in re.findall(r"\d+", t.replace("bbox_2d", ""))[:4]] for t in (a, b))
    if len(p) < 4 or len(q) < 4:
        return 0.0
    w = min(p[2], q[2]) - max(p[0], q[0])
    h = min(p[3], q[3]) - max(p[1], q[1])
    inter = max(0, w) * max(0, h)
    union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - inter
    return inter / union if union > 0 else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=16.5)
    parser.add_argument("--piece", type=float, default=7.2)
    parser.add_argument("--decay-share", type=float, default=0.35)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--micro", type=int, default=1)
    parser.add_argument("--patches", type=int, default=110000)
    parser.add_argument("--tokens", type=int, default=110000)
    parser.add_argument("--replay", type=float, default=1.0)
    parser.add_argument("--lr-muon", type=float, default=3e-3)
    parser.add_argument("--lr-adam", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mix", type=Path, help="a JSON file of the tasks' shares instead of MIXES")
    parser.add_argument("--compile", action="store_true", help="fuse the model's steps, after a minute")
    parser.add_argument("--no-graph", action="store_true", help="launch the optimizer's kernels one by one")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    mix = args.mix or args.work / "mix.json"
    if args.mix is None:
        mix.write_text(json.dumps(mix_at(0.0)))
    log_file = open(args.work / "log.txt", "a", buffering=1)

    def log(line):
        print(line, flush=True)
        log_file.write(line + "\n")

    started = time.time()
    feed = batches.Feed(args.workers, 2 * args.workers + 4, seed=f"{args.seed}.{int(started)}",
                        family="train", tokenizer=args.tokenizer, mix_path=mix, patches_max=args.patches,
                        tokens_max=args.tokens)
    import torch
    import torch.nn.functional as F
    import fast_model
    device = torch.device("cuda")
    # cuDNN would plan anew for every shape, and every batch has its own.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if args.compile:
        fast_model.compile_steps()
    model = build_model(torch, args.seed).to(device, torch.bfloat16)
    optimizer = Optimizer(torch, model, args.lr_muon, args.lr_adam, 0.02)
    if args.no_graph:
        optimizer.calls = -math.inf
    elapsed, step, warm_from = 0.0, 0, 0
    if args.resume:
        state = torch.load(args.work / "state.pt", map_location=device, weights_only=False)
        elapsed, step = state["elapsed"], state["step"]
        if not optimizer.load(state):
            warm_from = step
        log(f"resumed at step {step}, {elapsed:.0f} s")
    copier = Copier(torch, feed, 4)
    copier.start()
    log(f"{sum(p.numel() for p in model.parameters())} weights, slots pinned: {copier.pinned}, "
        f"start-up {time.time() - started:.0f} s, torch {torch.__version__}")

    kinds = 2 * len(batches.TASKS)
    zeros = lambda n: torch.zeros(n, device=device)
    right, seen, lost = zeros(kinds), zeros(kinds), zeros(2)
    lost_turns = 0
    pool, pool_bytes, rng = [], 0, random.Random(args.seed)
    fresh = replayed = rows = patches = tokens = steps = 0
    waited, rows_all = 0.0, 0
    boxes = []
    samples = open(args.work / "wrong.txt", "a", buffering=1)
    probe = 0
    tokenizer = None

    def save():
        torch.save(dict(optimizer.state(), elapsed=elapsed, step=step), args.work / "state.new")
        (args.work / "state.new").rename(args.work / "state.pt")

    total = args.minutes * 60
    mixed = mix_at(0.0)
    began_at = elapsed
    piece_end = elapsed + args.piece * 60
    flat, info = copier.out.get()
    first = (flat, info)
    log(f"first batch after {time.time() - started:.0f} s")
    steps_done = 0
    last_log = last_table = last_save = now = time.time()
    while elapsed < min(total, piece_end):
        counts = 0
        work = []
        for _ in range(args.micro):
            again = False
            if first is not None:
                flat, info = first
                first = None
            else:
                try:
                    flat, info = copier.out.get_nowait()
                except queue.Empty:
                    if pool and replayed < args.replay * fresh:
                        flat, info = pool[rng.randrange(len(pool))]
                        again = True
                    else:
                        begin = time.time()
                        flat, info = copier.out.get()
                        waited += time.time() - begin
            if again:
                replayed += 1
            else:
                fresh += 1
                rows += info["rows"]
                patches += info["patches"]
                tokens += info["tokens"]
                if args.replay > 0:
                    pool.append((flat, info))
                    pool_bytes += info["bytes"]
                    while pool_bytes > 30e9:
                        pool_bytes -= pool.pop(0)[1]["bytes"]
            work.append((flat, info, again))
            counts += info["turns"]
        for flat, info, again in work:
            batch = batches.to_device(flat, info)
            states, balance = fast_model.forward(model, batch)
            states = states.view(-1, states.shape[-1]).index_select(0, batch["label_at"])
            logits = F.linear(states, model.lm_head.weight).float()
            target = batch["label_id"]
            each = F.cross_entropy(logits, target, reduction="none")
            loss = each.sum() / counts
            (loss + 0.01 * balance / args.micro).backward()
            with torch.no_grad():
                lost += torch.stack([each.sum(), balance.detach() / args.micro])
                lost_turns += info["turns"]
                if not again:
                    guess = logits.argmax(-1)
                    wrong = zeros(info["turns"]).index_add_(0, batch["label_turn"], (guess != target).float())
                    right.index_add_(0, batch["turn_kind"], (wrong == 0).float())
                    seen.index_add_(0, batch["turn_kind"], torch.ones_like(wrong))
                    if probe > 0:
                        probe -= 1
                        tokenizer = tokenizer or batches.Encoder(args.tokenizer).tokenizer
                        turn = batch["label_turn"].tolist()
                        kind = batch["turn_kind"].tolist()
                        texts = {}
                        for t, g, y in zip(turn, guess.tolist(), target.tolist()):
                            pair = texts.setdefault(t, ([], []))
                            pair[0].append(g)
                            pair[1].append(y)
                        for t, pair in texts.items():
                            task = batches.TASKS[kind[t] // 2]
                            a, b = (tokenizer.decode(x) for x in pair)
                            if task == "box":
                                boxes.append(box_overlap(a, b))
                            if a != b and rng.random() < 0.03:
                                samples.write(f"{elapsed:.0f} {task}: {b} | {a}\n")
        warm = min(1.0, (step - warm_from + 1) / 150)
        decay = args.decay_share * total
        factor = warm * min(1.0, max(0.0, (total - elapsed) / decay))
        norm = optimizer.step(factor)
        step += 1
        steps += 1
        steps_done += 1
        if args.profile and step == 60:
            torch.cuda.synchronize()
            profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU,
                                                          torch.profiler.ProfilerActivity.CUDA])
            profiler.__enter__()
            profiled = time.time()
        if args.profile and step == 64:
            torch.cuda.synchronize()
            log(f"4 steps took {time.time() - profiled:.3f} s")
            profiler.__exit__(None, None, None)
            averages = profiler.key_averages()
            log(averages.table(sort_by="self_cuda_time_total", row_limit=28, max_name_column_width=60))
            log(averages.table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=60))
        if step % 8 == 0:
            torch.cuda.synchronize()
        before, now = now, time.time()
        # The first steps' time goes to compiling.
        elapsed = elapsed + now - before if steps_done > 5 else began_at
        if now - last_log > 15:
            a = lost.tolist()
            span = now - last_log
            rows_all += rows
            log(f"{elapsed:6.0f} s  step {step}  rate {factor:.3f}  "
                f"loss/turn {a[0] / max(lost_turns, 1):.4f}  balance {a[1] / max(steps, 1):.3f}  "
                f"norm {norm.item():.2f}  fresh rows/s {rows / span:.0f}  ({rows_all} rows)  "
                f"step {span / steps * 1e3:.0f} ms  patches/s {patches / span / 1e3:.0f}k  "
                f"tokens/s {tokens / span / 1e3:.0f}k  waited {waited / span:.0%}  "
                f"replayed {replayed / max(fresh + replayed, 1):.0%}  "
                f"ready {feed.ready.qsize()}  gpu {torch.cuda.max_memory_allocated() / 1e9:.0f} GB")
            lost.zero_()
            lost_turns = 0
            rows = patches = tokens = steps = 0
            waited = 0.0
            last_log = now
            probe = 3
            if args.mix is None and mix_at(elapsed / total) is not mixed:
                mixed = mix_at(elapsed / total)
                mix.write_text(json.dumps(mixed))
        if now - last_table > 60:
            r, s = right.tolist(), seen.tolist()
            cells = [f"{task} " + "/".join(f"{r[2 * i + z] / s[2 * i + z]:.1%}" if s[2 * i + z] else "-"
                                           for z in (0, 1)) + f" ({s[2 * i] + s[2 * i + 1]:.0f})"
                     for i, task in enumerate(batches.TASKS)]
            good = sum(x > 0.7 for x in boxes) / max(len(boxes), 1)
            log("   right en/zh: " + "  ".join(cells) + f"  boxes over 0.7: {good:.1%} of {len(boxes)}")
            right.zero_()
            seen.zero_()
            boxes = []
            last_table = now
        if now - last_save > 60:
            save()
            last_save = now = time.time()
    save()
    log(f"piece ended at {elapsed:.0f} s of {total:.0f} s, step {step}")
    feed.stop()


if __name__ == "__main__":
    main()
