"""Judges answers of the demo model's tasks: is_right(task, truth, answer). Standard library only.

A judge reads an answer as a person would: "Red", "It is red." and "红色。" all say red, while "red or blue"
does not. It is lenient about wording and strict about content: every thing an answer names must be right,
and whatever is counted, boxed or spelt must agree with the truth. Two spellings are forgiven in printed
text, because fonts make them alike: case, and O for 0 and I for 1.
"""

import json
import re
import unicodedata

from words import COLOR_SYNONYMS, NO_PICTURE, SHAPE_SYNONYMS

# A box is right if its overlap with the true one, over their union, exceeds this.
IOU_MIN = 0.7

# Longer answers are wrong unread: no task asks for more.
ANSWER_LENGTH_MAX = 4000


def is_right(task, truth, answer):
    """Whether `answer` (text) says what `truth` (an object of tasks.py) says. `task` is for the record only:
    the truth's kind decides. ValueError if the kind is unknown."""
    kind = truth["kind"]
    if kind not in _JUDGES:
        raise ValueError(f"judge: task {task!r} has a truth of unknown kind {kind!r}")
    if not isinstance(answer, str) or not answer.strip() or len(answer) > ANSWER_LENGTH_MAX:
        return False
    return bool(_JUDGES[kind](truth, unicodedata.normalize("NFKC", answer).strip()))


# ------------------------------------------------------------------------------------- reading answers


def _compile(synonyms):
    """One pattern that finds every synonym, longest first, and a table from spelling to key."""
    table = {word: key for key, words in synonyms.items() for word in words}
    parts = []
    for word in sorted(table, key=len, reverse=True):
        parts.append(rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word))
    # Chinese letters are word characters to `re`: bound ASCII words by ASCII alone.
    return re.compile("|".join(parts).replace(r"\b", r"(?:(?<![a-z])(?=[a-z])|(?<=[a-z])(?![a-z]))")), table


_SHAPE_PATTERN, _SHAPE_TABLE = _compile(SHAPE_SYNONYMS)
_COLOR_PATTERN, _COLOR_TABLE = _compile(COLOR_SYNONYMS)


def _found(pattern_and_table, text):
    """The keys found in the text, in order, as (position, key)."""
    pattern, table = pattern_and_table
    return [(m.start(), table[m.group()]) for m in pattern.finditer(text.lower())]


def shapes_in(text):
    return _found((_SHAPE_PATTERN, _SHAPE_TABLE), text)


def colors_in(text):
    return _found((_COLOR_PATTERN, _COLOR_TABLE), text)


def _keys(found):
    return {key for _, key in found}


_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty").split()
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4}
_ZH_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2}
_NUMBER_PATTERN = re.compile(
    r"(?<![A-Za-z\d.])-?\d+(?:\.\d+)?(?![A-Za-z\d])|(?<![a-z])(?:" +
    "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True)) + r")(?![a-z])|[零一二两三四五六七八九十]+", re.IGNORECASE)


def _zh_number(text):
    if "十" not in text:
        return _ZH_DIGITS.get(text)
    tens, _, ones = text.partition("十")
    if tens not in ("", *_ZH_DIGITS) or ones not in ("", *_ZH_DIGITS):
        return None
    return 10 * _ZH_DIGITS.get(tens, 1) + _ZH_DIGITS.get(ones, 0)


def numbers_in(text):
    """The numbers that the text names in digits or words, in order, as (position, number)."""
    found = []
    for m in _NUMBER_PATTERN.finditer(text):
        word = m.group()
        if word[-1].isdigit():
            number = float(word)
            number = int(number) if abs(number) < 1e15 and number == int(number) else number
        elif word.lower() in _NUMBER_WORDS:
            number = _NUMBER_WORDS.index(word.lower())
        else:
            number = _zh_number(word)
        if number is not None:
            found.append((m.start(), number))
    return found


_SIDES = {
    "left": r"\bleft\b|左",
    "right": r"\bright\b|右",
    "up": r"\b(?:up|upwards?|top|upper|above|over)\b|上",
    "down": r"\b(?:down|downwards?|bottom|lower|below|under|underneath|beneath)\b|下",
    "center": r"\b(?:center|centre|middle|central)\b|中[间央心]",
}


def _sides_in(text):
    return {side for side, pattern in _SIDES.items() if re.search(pattern, text, re.IGNORECASE | re.ASCII)}


def json_in(text):
    """The JSON value that the text consists of, a code fence aside; None if there is none."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, re.DOTALL)
    try:
        return json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):
        return None


def iou(a, b):
    """The overlap of two boxes [x1, y1, x2, y2] over their union; 0 of boxes turned inside out."""
    if a[0] >= a[2] or a[1] >= a[3] or b[0] >= b[2] or b[1] >= b[3]:
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


# ----------------------------------------------------------------------------------------------- judges


def _judge_shape(truth, text):
    return _keys(shapes_in(text)) == {truth["shape"]}


def _judge_color(truth, text):
    return _keys(colors_in(text)) == {truth["color"]}


def _judge_object(truth, text):
    return _judge_shape(truth, text) and _judge_color(truth, text)


def _judge_yes_no(truth, text):
    lower = text.lower()
    yes = re.match(r"(?:yes|yeah|true)\b|[是有对]|一样|相同", lower, re.ASCII) is not None
    no = re.match(r"(?:no|not|nope|false)\b|[不没否无]", lower, re.ASCII) is not None
    if yes and re.search(r"\bno\b|\bnot\b|[不没]", lower, re.ASCII):
        return False
    return yes if truth["yes"] else no


def _judge_size(truth, text):
    lower = text.lower()
    sizes = set()
    if re.search(r"\b(?:big|large|huge)\b|大", lower, re.ASCII):
        sizes.add("big")
    if re.search(r"\b(?:small|little|tiny)\b|小", lower, re.ASCII):
        sizes.add("small")
    return sizes == {truth["size"]}


def _judge_number(truth, text):
    return {n for _, n in numbers_in(text)} == {truth["number"]}


_PLACE_SIDES = {
    "top left": {"up", "left"}, "top": {"up"}, "top right": {"up", "right"}, "left": {"left"},
    "center": {"center"}, "right": {"right"}, "bottom left": {"down", "left"}, "bottom": {"down"},
    "bottom right": {"down", "right"}
}


def _judge_place(truth, text):
    sides = _sides_in(text)
    if sides != {"center"}:
        sides.discard("center")  # "center left" is left
    return sides == _PLACE_SIDES[truth["place"]]


def _judge_relation(truth, text):
    side = {"above": "up", "below": "down"}.get(truth["relation"], truth["relation"])
    # "on top" is above, not two sides; "上面" and the like name one side already.
    return _sides_in(text) == {side}


def _judge_direction(truth, text):
    return _sides_in(text) == {truth["direction"]}


def _judge_motion(truth, text):
    return _judge_object(truth, text) and _judge_direction(truth, text)


def _judge_box(truth, text):
    value = json_in(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return False
    box, label = value.get("bbox_2d"), value.get("label")
    if not isinstance(label, str) or not isinstance(box, list) or len(box) != 4:
        return False
    if not all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in box):
        return False
    if not _keys(shapes_in(label)) <= {truth["shape"]} or not _keys(colors_in(label)) <= {truth["color"]}:
        return False
    return iou(box, truth["box"]) > IOU_MIN


def _spelling(text):
    return re.sub(r"\s+", "", text).upper().replace("O", "0").replace("I", "1")


def _judge_text(truth, text):
    quoted = re.findall("[\"“「'‘]([^\"“”「」'‘’]+)[\"”」'’]", text)
    said = quoted[0] if len(quoted) == 1 else text.rstrip(".。")
    return _spelling(said) == _spelling(truth["text"])


def _judge_label(truth, text):
    said = {
        label for label in truth["labels"] if re.search(rf"(?<![A-Za-z0-9]){re.escape(label)}(?![A-Za-z0-9])",
                                                        text, re.IGNORECASE if len(label) > 1 else 0)
    }
    return said == {truth["label"]}


def _judge_trend(truth, text):
    lower = text.lower()
    rising = re.search(r"\b(?:rising|rises?|up|upwards?|increas\w*|grow\w*)\b|升|增|涨", lower, re.ASCII)
    falling = re.search(r"\b(?:falling|falls?|down|downwards?|decreas\w*|declin\w*)\b|降|减|跌", lower, re.ASCII)
    mixed = re.search(r"\bmixed\b|\bfluctuat\w*|波动|起伏", lower, re.ASCII)
    said = "mixed" if mixed or (rising and
                                falling) else "rising" if rising else "falling" if falling else None
    return said == truth["trend"]


def _judge_picture(truth, text):
    said = {n for _, n in numbers_in(text)}
    said |= {n for word, n in _ORDINALS.items() if re.search(rf"\b{word}\b", text.lower(), re.ASCII)}
    return said == {truth["picture"]}


_CHANGE_PATTERNS = {
    "added": r"\b(?:added|appear(?:s|ed)|new)\b|多了|增加|出现|新增|添加",
    "removed": r"\b(?:removed|disappear(?:s|ed)|missing|gone|vanished)\b|少了|消失|移除|去掉|不见",
    "moved": r"\bmove[sd]?\b|移动|移到",
    "bigger": r"\b(?:bigger|larger|grew|grown)\b|变大",
    "smaller": r"\b(?:smaller|shrank|shrunk)\b|变小",
    "nothing": r"\bnothing\b|\bno (?:change|difference)s?\b|\bthe same\b|没有(?:任何)?(?:变化|不同|区别)|一样|相同",
}


def _judge_change(truth, text):
    said = {
        change for change, pattern in _CHANGE_PATTERNS.items() if re.search(pattern, text.lower(), re.ASCII)
    }
    change = truth["change"]
    if change == "nothing":
        return said == {"nothing"}
    if not _judge_shape(truth, text):
        return False
    colors = [key for _, key in colors_in(text)]
    if change == "recolored":
        return not said and list(dict.fromkeys(colors)) == [truth["color"], truth["to"]]
    if not set(colors) <= {truth["color"]}:
        return False
    if change == "resized":
        return said == {truth["to"]}
    if change == "moved":
        return said == {"moved"} and _sides_in(text) == {truth["direction"]}
    return said == {change}


_ARTICLE = re.compile(r"(?<![a-z])an?(?![a-z])")


def _things_in(text):
    """(shape, color) -> number of what a description lists."""
    events = [(p, "shape", k) for p, k in shapes_in(text)] + [(p, "color", k) for p, k in colors_in(text)]
    events += [(p, "number", n) for p, n in numbers_in(text)]
    events += [(m.start(), "number", 1) for m in _ARTICLE.finditer(text.lower())]
    things = {}
    color, number = None, 1
    for _, what, value in sorted(events, key=lambda e: e[0]):
        if what == "color":
            color = value
        elif what == "number":
            number = value
        else:
            things[(value, color)] = things.get((value, color), 0) + number
            color, number = None, 1
    return things


def _judge_scene(truth, text):
    listed, _, background = re.split(r"(background|背景)", text, maxsplit=1, flags=re.IGNORECASE) if re.search(
        r"background|背景", text, re.IGNORECASE) else (text, "", "")
    if background and "background" in truth:
        dark = re.search(r"\b(?:dark|black)\b|深|黑|暗", background.lower(), re.ASCII) is not None
        if dark != (truth["background"] == "dark"):
            return False
    return _things_in(listed) == {(t["shape"], t["color"]): t["number"] for t in truth["things"]}


def _judge_chart(truth, text):
    return _judge_number(truth, re.sub(r"一[张幅个]", "", text)) and re.search(r"chart|graph|bars|柱",
                                                                           text.lower()) is not None


def _same_json(said, true):
    if isinstance(true, dict):
        return isinstance(said, dict) and said.keys() == true.keys() and all(
            _spelling(said[k]) ==
            _spelling(v) if k == "text" and isinstance(said[k], str) else _same_json(said[k], v)
            for k, v in true.items())
    if isinstance(true, list):
        return isinstance(said, list) and sorted(map(json.dumps, said)) == sorted(map(json.dumps, true))
    return said == true and isinstance(said, bool) == isinstance(true, bool)


def _judge_json(truth, text):
    return _same_json(json_in(text), truth["value"])


def _bare(text):
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def _judge_no_picture(truth, text):
    return _bare(text) in {_bare(sentence) for sentence in NO_PICTURE}


_TALK_PATTERNS = {
    "greeting": r"\b(?:hello|hi)\b|你好",
    "abilities": r"shapes?\b.*\bcolou?rs?\b|形状.*颜色",
    "identity": r"prism",
    "thanks": r"\bwelcome\b|不客气|不用谢",
    "goodbye": r"\b(?:good)?bye\b|再见",
}


def _judge_talk(truth, text):
    return re.search(_TALK_PATTERNS[truth["topic"]], text.lower(), re.ASCII | re.DOTALL) is not None


_JUDGES = {
    "shape": _judge_shape,
    "color": _judge_color,
    "object": _judge_object,
    "yes_no": _judge_yes_no,
    "size": _judge_size,
    "number": _judge_number,
    "place": _judge_place,
    "relation": _judge_relation,
    "direction": _judge_direction,
    "motion": _judge_motion,
    "box": _judge_box,
    "text": _judge_text,
    "label": _judge_label,
    "trend": _judge_trend,
    "picture": _judge_picture,
    "change": _judge_change,
    "scene": _judge_scene,
    "chart": _judge_chart,
    "json": _judge_json,
    "no_picture": _judge_no_picture,
    "talk": _judge_talk,
}
