"""Makes training batches: generator processes that fill slots of shared memory, and the reader's side.

A batch holds pictures of one grid and conversations about them, any tasks mixed; some rows that compare
pictures have some of a second grid. Several questions about the same pictures stand side by side as segments
(see fast_model.py), unless the conversation is linear. Every token id comes from the strings that the chat
template renders, encoded whole.
"""

import json
import mmap
import multiprocessing
import os
import time
import traceback
from pathlib import Path

import numpy as np

import model_config as mc

SLOT_BYTES = 176 << 20
TASKS = ("shapes", "colours", "sizes", "count", "position", "box", "text", "chart", "compare", "clip",
         "describe", "json", "no_picture", "talk")
IMAGE, VIDEO = mc.ID["<|image_pad|>"], mc.ID["<|video_pad|>"]
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"

SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant.", "Answer briefly.", "Be precise.",
           "You are a careful observer of pictures.", "You look at pictures and answer questions about them.",
           "Answer in one short sentence.", "You are Prism, a small vision model.",
           "你是一个乐于助人的助手。", "请简短回答。", "你是一个会看图的助手。", "请认真看图并回答问题。")


class Encoder:
    """The tokenizer with a memory for the short strings that come again and again."""

    def __init__(self, path):
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(str(path))
        self.known = {}

    def __call__(self, text):
        ids = self.known.get(text)
        if ids is None:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self.known) < 200000:
                self.known[text] = ids
        return ids


def timestamps(frames, fps):
    """The text before each temporal patch of a clip whose frames were all sampled."""
    index = list(range(frames)) + ([frames - 1] if frames % 2 else [])
    return [f"<{(index[i] / fps + index[i + 1] / fps) / 2:.1f} seconds>" for i in range(0, len(index), 2)]


def visual_text(images, frames, fps):
    """What the template and the processor put where the pictures or the clip are: one pad a run."""
    if frames:
        return "".join(f"{t}{VISION_START}<|video_pad|>{VISION_END}" for t in timestamps(frames, fps))
    return f"{VISION_START}<|image_pad|>{VISION_END}" * images


class Row:
    """One row of a batch: token ids with their three positions, segments and labels."""

    def __init__(self, h, w, groups=()):
        self.h, self.w = h, w  # in merged tokens
        self.groups = list(groups)  # (group, h, w) of each run of visual tokens, if they differ
        self.ids, self.pos, self.seg = [], [], []
        self.labels = []  # (index whose next token is the target, target, turn)
        # group (0 pictures, 1 clips, 2 pictures of the second grid) -> index of each visual token
        self.visual = {}
        self.next = 0

    def text(self, ids, segment):
        for i in ids:
            if i == IMAGE or i == VIDEO:
                p, at = self.next, len(self.ids)
                group, h, w = self.groups.pop(0) if self.groups else (int(i == VIDEO), self.h, self.w)
                self.pos.extend((p, p + r, p + c) for r in range(h) for c in range(w))
                self.ids.extend([i] * (h * w))
                self.seg.extend([segment] * (h * w))
                self.visual.setdefault(group, []).extend(range(at, at + h * w))
                self.next += max(h, w)
            else:
                self.ids.append(i)
                self.pos.append((self.next,) * 3)
                self.seg.append(segment)
                self.next += 1

    def answer(self, ids, segment, turn):
        at = len(self.ids)
        self.labels.extend((at - 1 + k, i, turn) for k, i in enumerate(ids))
        self.text(ids, segment)


def add_row(example, rng, encode, h, w, first_turn, groups=()):
    """The row of an Example whose pictures lie in a grid of h x w merged tokens, or in those that `groups`
    names one by one; turns count from first_turn."""
    row = Row(h, w, groups)
    frames = len(example.video) if example.video else 0
    seen = visual_text(len(example.images), frames, example.fps)
    head = f"<|im_start|>system\n{rng.choice(SYSTEMS)}<|im_end|>\n" if rng.random() < 0.12 else ""
    turns = list(example.turns)
    asked = "<|im_end|>\n<|im_start|>assistant\n"
    if len(turns) > 1 and rng.random() < 0.15:
        rng.shuffle(turns)
        for k, turn in enumerate(turns):
            before = f"{head}<|im_start|>user\n{seen}" if k == 0 else "\n<|im_start|>user\n"
            row.text(encode(before + turn.question + asked), 0)
            row.answer(encode(turn.answer + "<|im_end|>"), 0, first_turn + k)
    elif seen and not frames and rng.random() < 0.05:
        turns = turns[:1]
        row.text(encode(f"{head}<|im_start|>user\n{turns[0].question}{seen}{asked}"), 0)
        row.answer(encode(turns[0].answer + "<|im_end|>"), 0, first_turn)
    else:
        row.text(encode(f"{head}<|im_start|>user\n{seen}"), 0)
        start = row.next
        for k, turn in enumerate(turns):
            row.next = start
            row.text(encode(turn.question + asked), k + 1)
            row.answer(encode(turn.answer + "<|im_end|>"), k + 1, first_turn + k)
    return row, turns


class Writer:
    """Lays arrays one after another into a slot; `layout` says where, for the reader."""

    def __init__(self, buffer):
        self.buffer, self.at, self.layout = buffer, 0, {}

    def put(self, name, array):
        self.at = (self.at + 63) & ~63
        size = array.nbytes
        if self.at + size > len(self.buffer):
            raise OverflowError(f"{name} of {size} bytes does not fit the slot at {self.at}")
        view = np.frombuffer(self.buffer, array.dtype, array.size, self.at)
        view[:] = array.reshape(-1)
        self.layout[name] = (self.at, array.dtype.str, array.shape)
        self.at += size


def pack(rows, turns, images, clips, h, w, buffer, others=(), other_grid=(0, 0)):
    """Writes a batch into the buffer. images, clips: uint8 arrays [frames, H, W, 3]; h, w: the grid in
    patches; others: pictures of other_grid.

    Returns what the reader needs: the grid, the layout, the bytes used and the number of turns.
    """
    b = len(rows)
    n = (max(len(r.ids) for r in rows) + 15) // 16 * 16
    ids = np.full((b, n), mc.ID["<|endoftext|>"], np.int16)
    position = np.zeros((3, b, n), np.int16)
    segment = np.full((b, n), 127, np.int8)
    labels, visual = [], ([], [], [])
    for i, r in enumerate(rows):
        k = len(r.ids)
        ids[i, :k] = r.ids
        position[:, i, :k] = np.asarray(r.pos, np.int16).T
        segment[i, :k] = r.seg
        labels.extend((i * n + at, target, turn) for at, target, turn in r.labels)
        for group, index in r.visual.items():
            visual[group].append(np.asarray(index, np.int32) + i * n)
    labels = np.asarray(labels, np.int32)
    out = Writer(buffer)
    out.put("ids", ids)
    out.put("position", position)
    out.put("segment", segment)
    out.put("label_at", labels[:, 0])
    out.put("label_id", labels[:, 1].astype(np.int16))
    out.put("label_turn", labels[:, 2])
    out.put("turn_kind", np.asarray([TASKS.index(t.task) * 2 + zh for t, zh in turns], np.int16))
    if any(visual):
        out.put("visual_rows", np.concatenate(visual[0] + visual[1] + visual[2]))
    if images:
        out.put("images", np.stack(images))
    if clips:
        out.put("clips", np.stack(clips))
    if others:
        out.put("others", np.stack(others))
    patches = (len(images) + len(clips)) * h * w + len(others) * other_grid[0] * other_grid[1]
    return {"h": h, "w": w, "other_grid": tuple(other_grid), "layout": out.layout, "bytes": out.at,
            "turns": len(turns), "rows": b, "tokens": b * n, "patches": patches}


def choose_grid(rng, wide=0.06):
    """A picture size in pixels, (height, width): multiples of 32 within the processor's bounds."""
    while True:
        if rng.random() < wide:
            w, h = rng.randrange(4, 21) * 32, rng.randrange(4, 21) * 32
        else:
            side = 128 * 4 ** (rng.random() ** 0.9)
            aspect = 1.0 if rng.random() < 0.3 else 2 ** rng.uniform(-0.8, 0.8)
            w, h = (round(side * a / 32) * 32 for a in (aspect ** 0.5, aspect ** -0.5))
        if mc.IMAGE_PIXELS[0] <= w * h <= mc.IMAGE_PIXELS[1] and min(w, h) >= 96 and max(w, h) <= 640:
            return h, w


def source_size(rng, height, width):
    """A size that a picture is drawn at before it becomes height x width: usually that size itself."""
    low, high = 128, 512
    if rng.random() < 0.7 and low <= min(width, height) and max(width, height) <= high:
        return width, height
    for _ in range(20):
        scale = rng.choice((1.0, 1.0, rng.uniform(0.6, 1.3)))
        w, h = (round(s * scale) + rng.randint(-15, 15) for s in (width, height))
        within = low <= w <= high and low <= h <= high
        if within and (scale != 1.0 or mc.smart_resize(h, w) == (height, width)):
            return w, h
    return max(low, min(high, width)), max(low, min(high, height))


def as_array(image, height, width):
    if image.size != (width, height):
        image = image.resize((width, height), 3)  # bicubic
    return np.asarray(image)


class Mix:
    """Shares of the tasks, read again from a file while the trainer runs."""

    def __init__(self, path):
        self.path, self.read_at, self.shares = path, 0.0, {}

    def pick(self, rng, allowed):
        if time.time() - self.read_at > 5:
            try:
                self.shares = json.loads(Path(self.path).read_text())
            except (OSError, ValueError):
                if not self.shares:
                    raise
            self.read_at = time.time()
        names = [n for n in self.shares if n in allowed]
        return rng.choices(names, [self.shares[n] for n in names])[0]


# What may be asked about pictures of any size.
SINGLE = ("sitting", "shapes", "colours", "sizes", "count", "position", "box", "text", "chart", "describe",
          "json", "no_picture", "talk")


def make_batch(rng, source, mix, encode, buffer, patches_max, tokens_max):
    """Generates one batch into the buffer."""
    height, width = choose_grid(rng)
    h, w = height // mc.PATCH, width // mc.PATCH
    allowed = set(SINGLE)
    if min(height, width) < 176:
        allowed.remove("chart")
    comparable = height * width <= 352 * 352 and max(height, width) <= 512 and min(height, width) >= 128
    if comparable:
        allowed.add("compare")
    if height * width * 8 <= mc.VIDEO_PIXELS[1] and max(height, width) <= 512 and min(height, width) >= 128:
        allowed.add("clip")
    second = tuple(rng.randrange(4, 9) * 32 for _ in range(2))  # (height, width)
    second_grid = (second[0] // mc.PATCH, second[1] // mc.PATCH)
    rows, turns, images, clips, others, used, longest = [], [], [], [], [], 0, 0
    while used < patches_max and longest * len(rows) < tokens_max and len(turns) < 4000:
        task = mix.pick(rng, allowed)
        language = "zh" if rng.random() < 0.4 else "en"
        drawn = source_size(rng, height, width)
        groups = ()
        if task == "sitting":
            example = source.make_sitting(rng, language, drawn)
        elif task == "compare" and rng.random() < 0.6:
            # As the generator itself would choose sizes, from these two.
            source._compare_size = lambda r, _number: r.choice(((width, height), second[::-1]))
            example = source.make_example(rng, task, language)
            groups = [(0, h // 2, w // 2) if i.size == (width, height) else
                      (2, second_grid[0] // 2, second_grid[1] // 2) for i in example.images]
        else:
            example = source.make_example(rng, task, language, drawn)
        row, said = add_row(example, rng, encode, h // 2, w // 2, len(turns), groups)
        if len(row.ids) > 1400:
            continue
        rows.append(row)
        turns.extend((t, example.language == "zh") for t in said)
        for image in example.images:
            if groups and image.size != (width, height):
                others.append(np.asarray(image)[None])
            else:
                images.append(as_array(image, height, width)[None])
        if example.video:
            frames = [as_array(f, height, width) for f in example.video]
            frames += frames[-1:] * (len(frames) % 2)
            clips.extend(np.stack(frames[i:i + 2]) for i in range(0, len(frames), 2))
        used = (len(images) + len(clips)) * h * w + len(others) * second_grid[0] * second_grid[1]
        longest = max(longest, len(row.ids))
    return pack(rows, turns, images, clips, h, w, buffer, others, second_grid)


def worker(number, seed, family, buffers, free, ready, tokenizer, mix_path, patches_max, tokens_max):
    import tasks
    from pictures import stream
    os.nice(5)
    encode, mix = Encoder(tokenizer), Mix(mix_path)
    index = 0
    while True:
        slot = free.get()
        if slot is None:
            return
        try:
            rng = stream(family, f"{seed}.{number}.{index}")
            index += 1
            began = time.time()
            info = make_batch(rng, tasks, mix, encode, buffers[slot], patches_max, tokens_max)
            info["seconds"] = time.time() - began
            ready.put((slot, info))
        except Exception:  # A bad example must not end the run; it is printed and the slot used again.
            traceback.print_exc()
            free.put(slot)


class Feed:
    """The generator processes and their slots. Start it before CUDA is touched: it forks."""

    def __init__(self, workers, slots, **job):
        context = multiprocessing.get_context("fork")
        self.buffers = [mmap.mmap(-1, SLOT_BYTES) for _ in range(slots)]
        self.free, self.ready = context.Queue(), context.Queue()
        for slot in range(slots):
            self.free.put(slot)
        self.processes = [context.Process(target=worker, daemon=True, kwargs=dict(
            job, number=i, buffers=self.buffers, free=self.free, ready=self.ready)) for i in range(workers)]
        for p in self.processes:
            p.start()

    def stop(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.join(5)


def arrays(buffer, info):
    """The batch's arrays as numpy views of the slot."""
    return {name: np.frombuffer(buffer, np.dtype(kind), int(np.prod(shape)), at).reshape(shape)
            for name, (at, kind, shape) in info["layout"].items()}


_TORCH = {"|u1": "uint8", "|i1": "int8", "<i2": "int16", "<i4": "int32"}


def to_device(flat, info):
    """The batch of a slot that lies on the device as one uint8 tensor: views with the dtypes that indexing
    wants."""
    import torch
    batch = {"h": info["h"], "w": info["w"], "other_grid": info["other_grid"], "images": None, "clips": None,
             "others": None, "visual_rows": None, "turns": info["turns"]}
    for name, (at, kind, shape) in info["layout"].items():
        dtype = getattr(torch, _TORCH[kind])
        count = int(np.prod(shape))
        view = flat[at:at + count * np.dtype(kind).itemsize].view(dtype).view(tuple(shape))
        batch[name] = view if name in ("images", "clips", "others", "segment") else view.long()
    return batch
