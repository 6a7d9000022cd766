#!/usr/bin/env python3
"""Writes the demo model's held-out questions: FOLDER/questions.jsonl and FOLDER/pictures/.

    make_eval.py models/demo/eval

Every line of questions.jsonl is one question: {"id", "task", "language", "question", "truth", "answer"} and
what it is about: "pictures" (file names relative to FOLDER; none for text alone) or "video" ({"frames",
"fps"}). The streams come from EVAL_SEED, which no trainer uses. A picture is a PNG or a JPEG, whichever is
smaller. The same Pillow, numpy and fonts write the same bytes.
"""

import argparse
import io
import json
import pathlib
import sys

import judge
import pictures
import tasks

PER_TASK = 60
SIZE_MAX_BYTES = 8 << 20

# Asked in addition to PER_TASK: what lies beyond the range that the model is held to.
LONG_TEXTS = 10  # of 7 or 8 characters
LARGE_COUNTS = 6  # of 7 or 8


def _beyond(turn):
    """Whether a turn lies beyond the range that accuracy is promised for."""
    if turn.task == "text" and turn.truth["kind"] == "text":
        return len(turn.truth["text"]) > 6
    return turn.task == "count" and turn.truth["number"] > 6


def examples(some=tasks.TASKS):
    """Yields (id, example) of the set, all of it or some tasks; each example has one turn."""
    for task in some:
        wanted = {False: PER_TASK, True: {"text": LONG_TEXTS, "count": LARGE_COUNTS}.get(task, 0)}
        index, kept, seen = 0, 0, set()
        while any(wanted.values()):
            rng = pictures.stream(f"eval/{tasks.EVAL_SEED}/{task}", index)
            language = tasks.LANGUAGES[index % 2]
            index += 1
            example = tasks.make_example(rng, task, language, turns=1)
            turn = example.turns[0]
            # A question about no picture is the same question each time that its words are.
            if not example.images and not example.video and turn.question in seen:
                continue
            beyond = _beyond(turn)
            if not wanted[beyond]:
                continue
            wanted[beyond] -= 1
            seen.add(turn.question)
            yield f"{task}-{kept:03d}", example
            kept += 1


def encode(image, quality):
    """(suffix, bytes) of the smaller of PNG and JPEG."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=quality, optimize=True)
    return min(("png", png.getvalue()), ("jpg", jpeg.getvalue()), key=lambda pair: len(pair[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for old in (folder / "pictures").iterdir():
        old.unlink()
    total, lines = 0, []
    for name, example in examples():
        turn = example.turns[0]
        if not judge.is_right(turn.task, turn.truth, turn.answer):
            raise AssertionError(f"{name}: the canonical answer {turn.answer!r} is judged wrong")
        rng = pictures.stream(f"eval/{tasks.EVAL_SEED}/quality/{name}", 0)
        quality = rng.randint(70, 90)
        files = []
        for i, image in enumerate(example.images or example.video or []):
            suffix, data = encode(image, quality)
            file = f"pictures/{name}-{i}.{suffix}"
            (folder / file).write_bytes(data)
            total += len(data)
            files.append(file)
        line = {"id": name, "task": turn.task, "language": example.language, "question": turn.question}
        if example.video:
            line["video"] = {"frames": files, "fps": example.fps}
        else:
            line["pictures"] = files
        line["truth"], line["answer"] = turn.truth, turn.answer
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    text = "".join(lines).encode()
    (folder / "questions.jsonl").write_bytes(text)
    total += len(text)
    print(f"{len(lines)} questions, {total / 1e6:.2f} MB in {folder}")
    if total > SIZE_MAX_BYTES:
        sys.exit(f"make_eval: {total} bytes exceed {SIZE_MAX_BYTES}")


if __name__ == "__main__":
    main()
