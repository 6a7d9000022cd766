"""The demo model's tasks: pictures with questions and their one true answer, in English and Chinese.

    example = make_example(rng, task, language)      one of TASKS
    example = make_sitting(rng, language)             one scene, turns of several tasks
    example = sample(rng)                             a task by training_mix(), either language

An Example carries several turns about the same pictures where the task allows it; `turns[0]` of
make_example is always of the task asked for. Truths are small JSON objects that judge.is_right understands;
answers are canonical, so that a greedy answer has one right spelling.

Questions are asked only where a person would give the same answer: a thing is named only by what sets it
apart, "left of" only where it is clearly left, "largest" only where nothing comes near it.
"""

import dataclasses
import json

import pictures
from pictures import RADIUS_MIN, backdrop, draw_scene, finish, palette, random_size, scatter, stream
from words import (COLORS, COLOR_NAMES, DIRECTIONS, DIRECTION_NAMES, LANGUAGES, NO, NO_PICTURE, PLACES,
                   PLACE_NAMES, RELATIONS, RELATION_NAMES, SHAPES, SHAPE_NAMES, TREND_NAMES, YES)

EVAL_SEED = 20261120

TASKS = ("shapes", "colours", "sizes", "count", "position", "box", "text", "chart", "compare", "clip", "describe",
         "json", "no_picture", "talk")


@dataclasses.dataclass
class Turn:
    question: str
    answer: str
    truth: dict
    task: str


@dataclasses.dataclass
class Example:
    task: str
    language: str  # "en" or "zh"
    images: list  # of PIL RGB images, 0 to 4
    video: list | None  # of PIL RGB images, 4 to 8 frames, or None
    fps: float  # of the video
    turns: list  # of Turn


# ---------------------------------------------------------------------------------------------- wording

_BRIEF = {
    "en": (" Answer briefly.", " Answer in one word.", " Be brief.", " Just the answer, please."),
    "zh": ("请简短回答。", "只回答答案。", "简单回答。", "请直接回答。"),
}


def _say(rng, language, templates, **fill):
    """One of the templates, filled, and now and then in the looser spelling that people type."""
    text = rng.choice(templates[language])
    if fill:
        text = text.format(**fill)
    return _loosen(rng, language, text)


def _loosen(rng, language, text):
    if language == "en":
        if rng.random() < 0.4:
            text = text.replace("colour", "color")
        if rng.random() < 0.15:
            text = text[0].lower() + text[1:]
        kind = rng.random()
        if kind < 0.12 and text[-1] in "?.":
            text = text[:-1]
        elif kind < 0.16:
            text = ("Please tell me: ", "Look at the picture. ", "Tell me, ", "Hey, ")[rng.randrange(4)] + text
    else:
        kind = rng.random()
        if kind < 0.15 and text[-1] in "？。":
            text = text[:-1]
        elif kind < 0.22:
            text = ("请问", "请告诉我，", "看图回答：", "你好，")[rng.randrange(4)] + text
        elif kind < 0.27:
            text = text.replace("？", "?")
    return text


def _en(language):
    return 0 if language == "en" else 1


def _article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def thing_name(language, shape, color):
    """A thing's canonical name: "red circle", "红色圆形"."""
    if language == "en":
        return f"{color} {SHAPE_NAMES[shape][0]}"
    return COLOR_NAMES[color][1] + SHAPE_NAMES[shape][2]


def _things_named(language, shape, color, number):
    """The noun phrase of a number of like things: "a red circle", "two red circles", "一个红色圆形"."""
    if language == "en":
        if number == 1:
            return _article(thing_name(language, shape, color))
        return f"{_NUMBER_WORDS[number]} {color} {SHAPE_NAMES[shape][1]}"
    return f"{_ZH_NUMBERS[number]}个{thing_name(language, shape, color)}"


_NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ZH_NUMBERS = ("零", "一", "两", "三", "四", "五", "六", "七", "八", "九", "十")

_ZH_COLOR_SHAPE = ("{c}{s}", "{c}的{s}", "{c}{s}", "{c}的{s}", "{c}{s}")
_ZH_SHAPE_ASKED = {
    "circle": ("圆形", "圆形", "圆", "圆圈"),
    "square": ("正方形", "正方形", "方块"),
    "triangle": ("三角形",),
    "rectangle": ("长方形", "长方形", "矩形"),
    "star": ("星形", "星形", "五角星", "星星"),
    "diamond": ("菱形",),
    "cross": ("十字形", "十字形", "十字"),
    "ring": ("圆环", "圆环", "环形"),
    "heart": ("心形", "心形", "爱心"),
}


def _shape_asked(rng, language, shape, plural=False):
    """A shape's name as a question says it."""
    if language == "en":
        return SHAPE_NAMES[shape][1 if plural else 0]
    return rng.choice(_ZH_SHAPE_ASKED[shape])


def _color_asked(rng, language, color):
    if language == "en":
        return "grey" if color == "gray" and rng.random() < 0.4 else color
    name = COLOR_NAMES[color][1]
    return "粉红色" if color == "pink" and rng.random() < 0.3 else name


def _asked(rng, language, shape, color, plural=False):
    """A kind of thing as a question says it: "red circle", "红色的圆形"."""
    s = _shape_asked(rng, language, shape, plural)
    c = _color_asked(rng, language, color)
    return f"{c} {s}" if language == "en" else rng.choice(_ZH_COLOR_SHAPE).format(c=c, s=s)


def _refer(rng, language, scene, thing, full=0.5):
    """Words that mean this thing and no other of the scene, without an article; None if there are none."""
    if sum(t.kind == thing.kind for t in scene.things) > 1:
        return None
    if rng.random() >= full:
        if sum(t.shape == thing.shape for t in scene.things) == 1 and rng.random() < 0.8:
            return _shape_asked(rng, language, thing.shape)
        if sum(t.color == thing.color for t in scene.things) == 1:
            c = _color_asked(rng, language, thing.color)
            if language == "en":
                return f"{c} {rng.choice(('shape', 'shape', 'one', 'thing', 'object'))}"
            return c + rng.choice(("的图形", "图形", "的形状", "的物体"))
    return _asked(rng, language, thing.shape, thing.color)


def _sentence(language, text):
    return text[0].upper() + text[1:] + "." if language == "en" else text + "。"


def _yes_no(language, yes):
    return (YES if yes else NO)[_en(language)]


def _unique(things, key):
    seen = {}
    for thing in things:
        seen.setdefault(key(thing), []).append(thing)
    return [group[0] for group in seen.values() if len(group) == 1]


# ---------------------------------------------------------------------------------------------- scenes

def _radius_base(width, height, number):
    return min(0.36 * (width * height / number) ** 0.5, 0.42 * min(width, height))


def _distinct_kinds(rng, number, dark):
    """Kinds that differ pairwise; mostly in shape and colour both."""
    colors = palette(dark)
    if number <= 6 and rng.random() < 0.6:
        return list(zip(rng.sample(SHAPES, number), rng.sample(colors, number)))
    kinds = []
    while len(kinds) < number:
        kind = (rng.choice(SHAPES), rng.choice(colors))
        if kind not in kinds:
            kinds.append(kind)
    return kinds


def _scene_of(rng, size, number, kinds=None, low=0.5, high=1.0):
    width, height = size
    back = backdrop(rng, width, height)
    if kinds is None:
        kinds = _distinct_kinds(rng, number, back.dark)
    base = _radius_base(width, height, number)
    radii = [max(RADIUS_MIN, base * rng.uniform(low, high)) for _ in range(number)]
    return draw_scene(rng, back, kinds, scatter(rng, width, height, radii))


def scene_single(rng, size):
    """One thing."""
    width, height = size
    back = backdrop(rng, width, height)
    side = min(width, height)
    radius = max(RADIUS_MIN + 1, side * rng.uniform(0.11, 0.44))
    return draw_scene(rng, back, [(rng.choice(SHAPES), rng.choice(palette(back.dark)))],
                      scatter(rng, width, height, [radius]))


def scene_distinct(rng, size):
    """Two to five things of different kinds."""
    return _scene_of(rng, size, rng.choice((2, 2, 3, 3, 4, 4, 5)))


def scene_many(rng, size):
    """One to eight things among which kinds repeat: for counting."""
    width, height = size
    back = backdrop(rng, width, height)
    target = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8)) if min(size) >= 160 else rng.randint(1, 6)
    others = rng.choice((0, 0, 1, 2, 3)) if target < 6 else rng.choice((0, 0, 1))
    colors = palette(back.dark)
    kind = rng.random()
    if kind < 0.4:  # one kind repeated
        like = (rng.choice(SHAPES), rng.choice(colors))
        kinds = [like] * target
    elif kind < 0.75:  # one shape, any colour
        shape = rng.choice(SHAPES)
        some = rng.sample(colors, rng.randint(1, 3))
        kinds = [(shape, rng.choice(some)) for _ in range(target)]
    else:  # one colour, any shape
        color = rng.choice(colors)
        some = rng.sample(SHAPES, rng.randint(1, 3))
        kinds = [(rng.choice(some), color) for _ in range(target)]
    kinds += [(rng.choice(SHAPES), rng.choice(colors)) for _ in range(others)]
    number = len(kinds)
    base = min(_radius_base(width, height, number) * 0.9, 0.25 * min(width, height))
    same = rng.random() < 0.4
    share = rng.uniform(0.5, 1.0)
    radii = [max(RADIUS_MIN, base * (share if same else rng.uniform(0.5, 1.0))) for _ in range(number)]
    return draw_scene(rng, back, kinds, scatter(rng, width, height, radii))


def scene_sized(rng, size):
    """One to four things of clearly different sizes."""
    width, height = size
    back = backdrop(rng, width, height)
    side = min(width, height)
    number = rng.choice((1, 2, 2, 2, 3, 3, 4))
    if number == 1:
        small = rng.random() < 0.5
        radii = [max(RADIUS_MIN, side * (rng.uniform(0.07, 0.12) if small else rng.uniform(0.29, 0.44)))]
    else:
        largest = side * rng.uniform(0.24, 0.29)
        smallest = max(RADIUS_MIN, side * rng.uniform(0.075, 0.11))
        radii = [largest, smallest]
        middle = (largest * smallest) ** 0.5
        radii += [middle * rng.uniform(0.9, 1.1)] * (number - 2)
        if number > 2 and rng.random() < 0.5:
            radii[1 if rng.random() < 0.5 else 0] = radii[2]
    kinds = _distinct_kinds(rng, number, back.dark)
    order = list(range(number))
    rng.shuffle(order)
    return draw_scene(rng, back, kinds, scatter(rng, width, height, [radii[i] for i in order]))


def scene_pair(rng, size):
    """Two things clearly left and right of or above and below each other, at times a third elsewhere."""
    width, height = size
    back = backdrop(rng, width, height)
    number = 2 if rng.random() < 0.7 else 3
    across = rng.random() < (0.5 if 0.6 < width / height < 1.7 else 0.75 if width > height else 0.25)
    along, over = (width, height) if across else (height, width)
    base = min(along * 0.2, over * 0.36, _radius_base(width, height, number))
    for _ in range(60):
        r0, r1 = (max(RADIUS_MIN, base * rng.uniform(0.5, 1.0)) for _ in range(2))
        a0 = rng.uniform(r0 + 3, along - r1 * 2 - r0 - 8)
        a1 = rng.uniform(min(a0 + r0 + r1 + 5, along - r1 - 3), along - r1 - 3)
        b0 = rng.uniform(r0 + 3, over - r0 - 3)
        b1 = max(r1 + 3, min(over - r1 - 3, b0 + rng.uniform(-0.5, 0.5) * (a1 - a0)))
        if abs(b1 - b0) < 0.52 * (a1 - a0) and a1 - a0 > r0 + r1 + 4:
            break
    spots = [(a0, b0, r0), (a1, b1, r1)]
    if not across:
        spots = [(b, a, r) for a, b, r in spots]
    if number == 3:
        for _ in range(40):
            r = max(RADIUS_MIN, base * rng.uniform(0.5, 0.9))
            x, y = rng.uniform(r + 3, width - r - 3), rng.uniform(r + 3, height - r - 3)
            if all(max(abs(x - px), abs(y - py)) > r + pr + 4 for px, py, pr in spots):
                spots.append((x, y, r))
                break
    rng.shuffle(spots)
    return draw_scene(rng, back, _distinct_kinds(rng, len(spots), back.dark), spots)


_CELL = ((0.0, 0.29), (0.40, 0.60), (0.71, 1.0))


def scene_placed(rng, size):
    """One thing well inside one of nine places; at times one or two others."""
    width, height = size
    back = backdrop(rng, width, height)
    place = rng.randrange(9)
    radius = max(RADIUS_MIN, min(width, height) * rng.uniform(0.1, 0.2))
    spot = []
    for low_high, length in ((_CELL[place % 3], width), (_CELL[place // 3], height)):
        low, high = low_high[0] * length, low_high[1] * length
        low, high = max(low, radius + 3), min(high, length - radius - 3)
        spot.append(rng.uniform(low, high) if low < high else (low + high) / 2)
    spots = [(spot[0], spot[1], radius)]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        for _ in range(20):
            r = max(RADIUS_MIN, min(width, height) * rng.uniform(0.09, 0.17))
            x, y = rng.uniform(r + 3, width - r - 3), rng.uniform(r + 3, height - r - 3)
            if all(max(abs(x - px), abs(y - py)) > r + pr + 4 for px, py, pr in spots):
                spots.append((x, y, r))
                break
    return draw_scene(rng, back, _distinct_kinds(rng, len(spots), back.dark), spots)


def scene_row(rng, size):
    """One to five things whose order from left to right is plain."""
    width, height = size
    number = rng.choice((1, 2, 2, 3, 3, 3, 4, 4, 5)) if width >= 192 else rng.choice((1, 2, 2, 3, 3))
    back = backdrop(rng, width, height)
    column = width / number
    spots = []
    for i in range(number):
        r = max(RADIUS_MIN, min(column * 0.46, height * 0.4, 0.5 * (width * height / number) ** 0.5)
                * rng.uniform(0.5, 1.0))
        slack = max(0.0, column / 2 - r - 2)
        x = column * (i + 0.5) + rng.uniform(-slack, slack)
        y = rng.uniform(r + 3, max(r + 3, height - r - 3))
        spots.append((x, y, r))
    colors = palette(back.dark)
    if rng.random() < 0.6:
        kinds = _distinct_kinds(rng, number, back.dark)
    else:
        some = [(rng.choice(SHAPES), rng.choice(colors)) for _ in range(2)]
        kinds = [rng.choice(some) for _ in range(number)]
    return draw_scene(rng, back, kinds, spots)


# ------------------------------------------------------------------------------------- asking of scenes
#
# Each ask_* looks for something in a scene that can be asked without doubt, and returns a Turn or None.

_Q_SHAPE_SINGLE = {
    "en": ("What shape is this?", "What shape is it?", "Which shape is shown?", "What shape do you see?",
           "Name the shape.", "What is the shape in the picture?", "Which shape is in the image?",
           "What kind of shape is this?", "Identify the shape.", "What figure is drawn here?",
           "What shape can you see in the picture?", "Tell me the shape.", "What shape did I draw?"),
    "zh": ("这是什么形状？", "图中是什么形状？", "图里是什么图形？", "这是什么图形？", "请说出图中的形状。",
           "图片里的形状是什么？", "你看到了什么形状？", "画的是什么形状？", "图中的图形是什么？", "这个图形叫什么？",
           "我画的是什么形状？"),
}
_Q_SHAPE_OF_COLOR = {
    "en": ("What shape is {c}?", "What shape is the {c} one?", "Which shape is {c}?", "What is the {c} shape?",
           "Name the {c} shape.", "What {c} shape do you see?", "What {c} shape is there?",
           "What shape is the {c} object?", "What is the shape of the {c} thing?", "The {c} shape is what?",
           "Which {c} shape is in the picture?", "Which of the shapes is {c}?"),
    "zh": ("{c}的是什么形状？", "什么形状是{c}的？", "{c}的图形是什么形状？", "哪个形状是{c}的？", "图中{c}的是什么？",
           "{c}图形是什么？", "图里{c}的是什么图形？", "说出{c}图形的形状。", "{c}的物体是什么形状？",
           "哪个图形是{c}的？"),
}
_Q_IS_THERE = {
    "en": ("Is there {a} in the picture?", "Is there {a}?", "Do you see {a}?", "Can you see {a}?",
           "Does the picture show {a}?", "Does the image contain {a}?", "Is {a} in the picture?",
           "Is there {a} here?", "Does {a} appear in the image?", "Can you find {a}?",
           "Is {a} shown?"),
    "zh": ("图里有{a}吗？", "图中有没有{a}？", "有{a}吗？", "你看到{a}了吗？", "图片里有{a}吗？", "图中是否有{a}？",
           "能看到{a}吗？", "这里有{a}吗？", "画面中有{a}吗？", "图上有没有{a}？"),
}


def ask_shape(rng, language, scene):
    if len(scene.things) == 1 and rng.random() < 0.75:
        thing = scene.things[0]
        question = _say(rng, language, _Q_SHAPE_SINGLE)
    else:
        lone = _unique(scene.things, lambda t: t.color)
        if not lone:
            return None
        thing = rng.choice(lone)
        question = _say(rng, language, _Q_SHAPE_OF_COLOR, c=_color_asked(rng, language, thing.color))
    name = SHAPE_NAMES[thing.shape]
    answer = _sentence(language, _article(name[0]) if language == "en" else name[2])
    return Turn(question, answer, {"kind": "shape", "shape": thing.shape}, "shapes")


def _doubtful(shape, shapes):
    """Whether some would call another of these shapes by this name: a ring is a circle to many people."""
    return (shape == "circle" and "ring" in shapes) or (shape == "ring" and "circle" in shapes)


def ask_is_there(rng, language, scene):
    yes = rng.random() < 0.5
    shapes = {t.shape for t in scene.things}
    if rng.random() < 0.5:
        shape = rng.choice(sorted(shapes) if yes else [s for s in SHAPES if s not in shapes])
        if _doubtful(shape, shapes):
            return None
        name = _shape_asked(rng, language, shape)
    else:
        kinds = {t.kind for t in scene.things}
        if yes:
            shape, color = rng.choice(sorted(kinds))
        else:  # half of what is not there is nearly there
            near = rng.choice(sorted(kinds))
            for _ in range(50):
                kind = rng.random()
                shape = near[0] if kind < 0.35 else rng.choice(SHAPES)
                color = near[1] if 0.35 <= kind < 0.7 else rng.choice(COLORS)
                if (shape, color) not in kinds and not _doubtful(shape, shapes):
                    break
            else:
                return None
        name = _asked(rng, language, shape, color)
    a = _article(name) if language == "en" else name
    question = _say(rng, language, _Q_IS_THERE, a=a)
    answer = YES[0] if yes else NO[0]
    if language == "zh":
        answer = "有。" if yes else "没有。"
    return Turn(question, answer, {"kind": "yes_no", "yes": yes}, "shapes")


_Q_COLOR_SINGLE = {
    "en": ("What colour is it?", "What colour is the shape?", "What colour is this?", "Which colour is the shape?",
           "What is its colour?", "Name the colour.", "What is the colour of the shape?",
           "What colour do you see?", "What colour does the shape have?", "Tell me the colour of the shape.",
           "Which colour is it?"),
    "zh": ("它是什么颜色？", "这个图形是什么颜色？", "图形是什么颜色的？", "什么颜色？", "这是什么颜色？", "图中的形状是什么颜色？",
           "请说出图形的颜色。", "它的颜色是什么？", "图里的图形是什么颜色？", "形状的颜色是什么？"),
}
_Q_COLOR_OF = {
    "en": ("What colour is the {x}?", "Which colour is the {x}?", "What is the colour of the {x}?",
           "The {x} is what colour?", "Tell me the colour of the {x}.", "Name the colour of the {x}.",
           "What colour does the {x} have?", "In which colour is the {x} drawn?", "What colour is this {x}?",
           "What's the colour of the {x}?", "Which colour does the {x} have?"),
    "zh": ("{x}是什么颜色？", "{x}是什么颜色的？", "图中{x}的颜色是什么？", "{x}的颜色是什么？", "请说出{x}的颜色。",
           "{x}什么颜色？", "这个{x}是什么颜色？", "图里的{x}是什么颜色？", "那个{x}是什么颜色的？", "{x}是哪种颜色？"),
}
_Q_IS_COLOR = {
    "en": ("Is the {x} {c}?", "Is the {x} {c} in this picture?", "Does the {x} look {c}?", "Is the {x} of {c} colour?",
           "Is {c} the colour of the {x}?", "Would you say the {x} is {c}?", "Is it true that the {x} is {c}?",
           "Is the colour of the {x} {c}?", "The {x} is {c}, right?", "Is the {x} drawn in {c}?"),
    "zh": ("{x}是{c}的吗？", "{x}是{c}吗？", "图中的{x}是{c}的吗？", "{x}是不是{c}的？", "{x}的颜色是{c}吗？",
           "这个{x}是{c}的吗？", "图里的{x}是不是{c}？", "{x}是不是{c}？", "那个{x}是{c}的吗？", "图中{x}的颜色是不是{c}？"),
}


def ask_color(rng, language, scene):
    groups = {}
    for t in scene.things:
        groups.setdefault(t.shape, set()).add(t.color)
    lone = [t for t in scene.things if len(groups[t.shape]) == 1 and
            sum(u.shape == t.shape for u in scene.things) == 1]
    if len(scene.things) == 1 and rng.random() < 0.5:
        thing = scene.things[0]
        question = _say(rng, language, _Q_COLOR_SINGLE)
    elif lone:
        thing = rng.choice(lone)
        x = _shape_asked(rng, language, thing.shape)
        if rng.random() < 0.15:
            yes = rng.random() < 0.5
            color = thing.color if yes else rng.choice([c for c in COLORS if c != thing.color])
            question = _say(rng, language, _Q_IS_COLOR, x=x, c=_color_asked(rng, language, color))
            return Turn(question, _yes_no(language, yes), {"kind": "yes_no", "yes": yes}, "colours")
        question = _say(rng, language, _Q_COLOR_OF, x=x)
    else:
        return None
    return Turn(question, _sentence(language, COLOR_NAMES[thing.color][_en(language)]),
                {"kind": "color", "color": thing.color}, "colours")


_Q_LARGEST = {
    "en": ("Which shape is the largest?", "Which shape is the biggest?", "What is the largest shape?",
           "What is the biggest thing in the picture?", "Which one is the largest?", "Name the largest shape.",
           "Which object is the biggest?", "What's the biggest shape?", "Find the largest shape.",
           "Which of the shapes is the largest?", "What is the biggest shape here?"),
    "zh": ("哪个图形最大？", "最大的图形是哪个？", "哪个形状最大？", "最大的是什么？", "图中最大的图形是什么？", "哪一个最大？",
           "图里什么最大？", "最大的形状是什么？", "请说出最大的图形。", "哪个物体最大？"),
}
_Q_SMALLEST = {
    "en": ("Which shape is the smallest?", "What is the smallest shape?", "Which one is the smallest?",
           "What is the smallest thing in the picture?", "Name the smallest shape.", "Which object is the smallest?",
           "What's the smallest shape?", "Find the smallest shape.", "Which of the shapes is the smallest?",
           "What is the smallest shape here?", "Which shape is the tiniest?"),
    "zh": ("哪个图形最小？", "最小的图形是哪个？", "哪个形状最小？", "最小的是什么？", "图中最小的图形是什么？", "哪一个最小？",
           "图里什么最小？", "最小的形状是什么？", "请说出最小的图形。", "哪个物体最小？"),
}
_Q_WHICH_BIGGER = {
    "en": ("Which is bigger, the {x} or the {y}?", "Which is larger, the {x} or the {y}?",
           "Which one is bigger: the {x} or the {y}?", "What is bigger, the {x} or the {y}?",
           "The {x} or the {y}: which is larger?", "Of the {x} and the {y}, which is bigger?",
           "Is the {x} or the {y} bigger?", "Is the {x} or the {y} larger?",
           "Compare the {x} with the {y}: which is bigger?", "Between the {x} and the {y}, which is larger?"),
    "zh": ("{x}和{y}哪个大？", "{x}和{y}哪个更大？", "{x}与{y}相比，哪个更大？", "哪个更大，{x}还是{y}？", "是{x}大还是{y}大？",
           "{x}和{y}，哪一个比较大？", "比较{x}和{y}，哪个大？", "{x}、{y}中哪个更大？", "{x}大还是{y}大？", "哪个大：{x}还是{y}？"),
}
_Q_WHICH_SMALLER = {
    "en": ("Which is smaller, the {x} or the {y}?", "Which one is smaller: the {x} or the {y}?",
           "What is smaller, the {x} or the {y}?", "The {x} or the {y}: which is smaller?",
           "Of the {x} and the {y}, which is smaller?", "Is the {x} or the {y} smaller?",
           "Between the {x} and the {y}, which is smaller?", "Compare the {x} with the {y}: which is smaller?",
           "Which has the smaller size, the {x} or the {y}?", "Which of the two is smaller, the {x} or the {y}?"),
    "zh": ("{x}和{y}哪个小？", "{x}和{y}哪个更小？", "{x}与{y}相比，哪个更小？", "哪个更小，{x}还是{y}？", "是{x}小还是{y}小？",
           "{x}和{y}，哪一个比较小？", "比较{x}和{y}，哪个小？", "{x}、{y}中哪个更小？", "{x}小还是{y}小？", "哪个小：{x}还是{y}？"),
}
_Q_SMALL_OR_BIG = {
    "en": ("Is the {x} small or big?", "Is the {x} big or small?", "Is the {x} large or small?",
           "How big is the {x}, big or small?", "Is the {x} small or large?", "What size is the {x}: big or small?",
           "Would you call the {x} big or small?", "Is the size of the {x} small or big?", "The {x}: big or small?",
           "What is the size of the {x}, small or big?"),
    "zh": ("{x}是大还是小？", "{x}大还是小？", "{x}的大小是大还是小？", "图中的{x}是大的还是小的？", "{x}是小的还是大的？",
           "这个{x}大还是小？", "{x}算大还是算小？", "{x}是大是小？", "图里的{x}大还是小？", "{x}的尺寸是大还是小？"),
}


def _clearly_bigger(a, b):
    return a.extent > 1.4 * b.extent and a.area > 1.5 * b.area


def _the(language, thing):
    name = thing_name(language, thing.shape, thing.color)
    return _sentence(language, "the " + name if language == "en" else name)


def _object_truth(thing):
    return {"kind": "object", "shape": thing.shape, "color": thing.color}


def ask_size(rng, language, scene):
    things = scene.things
    if len(things) <= 2 and rng.random() < (1.0 if len(things) == 1 else 0.25):
        thing = rng.choice(things)
        side = min(scene.width, scene.height)
        small = thing.extent <= max(0.25 * side, 2 * RADIUS_MIN + 3)
        big = thing.extent >= 0.46 * side
        if len(things) == 2:
            other = things[0] if thing is things[1] else things[1]
            if not (_clearly_bigger(thing, other) if big else _clearly_bigger(other, thing)):
                return None
        x = _refer(rng, language, scene, thing)
        if x is None or small == big:
            return None
        if len(things) == 1 and rng.random() < 0.4:
            x = "shape" if language == "en" else "图形"
        question = _say(rng, language, _Q_SMALL_OR_BIG, x=x)
        answer = ("Big." if big else "Small.") if language == "en" else ("大。" if big else "小。")
        return Turn(question, answer, {"kind": "size", "size": "big" if big else "small"}, "sizes")
    if len(things) < 2:
        return None
    largest = max(things, key=lambda t: t.area)
    smallest = min(things, key=lambda t: t.area)
    kind = rng.random()
    if kind < 0.3:
        if not all(t is largest or _clearly_bigger(largest, t) for t in things):
            return None
        return Turn(_say(rng, language, _Q_LARGEST), _the(language, largest), _object_truth(largest), "sizes")
    if kind < 0.6:
        if not all(t is smallest or _clearly_bigger(t, smallest) for t in things):
            return None
        return Turn(_say(rng, language, _Q_SMALLEST), _the(language, smallest), _object_truth(smallest), "sizes")
    a, b = rng.sample(things, 2)
    if not (_clearly_bigger(a, b) or _clearly_bigger(b, a)):
        return None
    x, y = _refer(rng, language, scene, a), _refer(rng, language, scene, b)
    if x is None or y is None:
        return None
    bigger = rng.random() < 0.5
    answer = a if _clearly_bigger(a, b) == bigger else b
    question = _say(rng, language, _Q_WHICH_BIGGER if bigger else _Q_WHICH_SMALLER, x=x, y=y)
    return Turn(question, _the(language, answer), _object_truth(answer), "sizes")


_Q_COUNT = {
    "en": ("How many {x} are there?", "How many {x} are in the picture?", "How many {x} do you see?",
           "How many {x} can you see?", "Count the {x}.", "What is the number of {x}?", "How many {x}?",
           "How many {x} are shown?", "How many {x} does the picture show?", "Tell me how many {x} there are.",
           "Please count the {x}.", "How many {x} did I draw?", "What number of {x} is in the image?"),
    "zh": ("图里有几个{x}？", "图中有几个{x}？", "有几个{x}？", "有多少个{x}？", "图中有多少个{x}？", "数一数有几个{x}。",
           "一共有几个{x}？", "图片里有多少个{x}？", "请数出{x}的数量。", "你看到几个{x}？", "{x}有几个？", "画面中有几个{x}？"),
}


def ask_count(rng, language, scene):
    things = scene.things
    kind = rng.random()
    if kind < 0.25:
        number = len(things)
        if language == "en":
            x = rng.choice(("shapes", "shapes", "objects", "things", "figures"))
        else:
            x = rng.choice(("图形", "图形", "形状", "物体"))
    elif rng.random() < 0.06:  # none of them
        shape = rng.choice(SHAPES)
        if any(t.shape == shape for t in things) or _doubtful(shape, {t.shape for t in things}):
            return None
        number, x = 0, _shape_asked(rng, language, shape, plural=True)
    else:
        # The more things there are of a kind, the likelier it is asked for.
        weights = [1.0 + sum(t.shape == u.shape for u in things) ** 2 for t in things]
        pick = rng.choices(things, weights)[0]
        if kind < 0.6:
            if _doubtful(pick.shape, {t.shape for t in things}):
                return None
            number = sum(t.shape == pick.shape for t in things)
            x = _shape_asked(rng, language, pick.shape, plural=True)
        elif kind < 0.8:
            number = sum(t.color == pick.color for t in things)
            c = _color_asked(rng, language, pick.color)
            x = (f"{c} {rng.choice(('shapes', 'shapes', 'objects', 'things'))}" if language == "en" else
                 c + rng.choice(("图形", "的图形", "的形状", "的物体")))
        else:
            number = sum(t.kind == pick.kind for t in things)
            x = _asked(rng, language, pick.shape, pick.color, plural=True)
    return Turn(_say(rng, language, _Q_COUNT, x=x), str(number), {"kind": "number", "number": number}, "count")


# ------------------------------------------------------------------------------------------------ text

_Q_TEXT = {
    "en": ("What does the text say?", "What is written here?", "Read the text.", "What text is in the picture?",
           "What does it say?", "What is written in the picture?", "Which text do you see?", "Read this.",
           "What word or code is printed here?", "Transcribe the text.", "What is the text in the image?",
           "Please read the text in this image.", "What characters are shown?", "What letters do you see?"),
    "zh": ("图里写了什么？", "图中的文字是什么？", "上面写着什么？", "请读出图中的文字。", "图片里的文字是什么？", "写的是什么？",
           "读一下图里的文字。", "图中写着什么字？", "请识别图中的文字。", "这上面的字是什么？", "文字内容是什么？", "图片上写了什么？"),
}
_Q_TEXT_LENGTH = {
    "en": ("How many characters does the text have?", "How many characters are printed?",
           "How long is the text, in characters?", "Count the characters.", "How many characters do you see?"),
    "zh": ("图中的文字有几个字符？", "一共有几个字符？", "文字有多少个字符？", "数一数有几个字符。", "这串文字有几个字符？"),
}

WORDS = (
    "cat dog sun sky red blue tree fish bird star moon rain snow fire book door home road ship lamp gold milk "
    "hand foot blog menu wolf bear lion duck frog king queen apple bread chair table house river stone cloud "
    "light night green white black brown water plant happy smile music party robot prism train plane truck "
    "pizza lemon mango grape sugar coffee cheese orange yellow purple silver garden window summer winter "
    "spring autumn planet rocket camera pencil school market doctor friend family animal flower island "
    "bridge castle dragon forest hello world open closed exit stop push pull sale free taxi hotel bank shop "
    "cafe bus zoo park map key box cup hat pen egg ice jam toy van web yes no on off up go ok hi the and "
    "computer keyboard language mountain elephant sandwich birthday football hospital airplane notebook "
    "picture number letter circle square test demo data code model image vision token cache page shard "
    "north south east west left right first last seven eight three hundred thanks welcome danger caution "
    "private public office kitchen").split()

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_DIGITS = "0123456789"
_SMALL_LETTERS = "abcdefghijkmnpqrstuvwxyz"


def random_text(rng, length_max=8):
    """1 to 8 characters to print. I and O are left out where they could be digits."""
    kind = rng.random()
    if kind < 0.32:
        words = [w for w in WORDS if len(w) <= length_max]
        word = rng.choice(words)
        case = rng.random()
        return word.upper() if case < 0.55 else word.capitalize() if case < 0.8 else word
    length = rng.choice([n for n in (1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8) if n <= length_max])
    if kind < 0.5:
        return "".join(rng.choice(_DIGITS) for _ in range(length))
    if kind < 0.68:
        return "".join(rng.choice(_LETTERS) for _ in range(length))
    if kind < 0.76:
        return "".join(rng.choice(_SMALL_LETTERS) for _ in range(length))
    return "".join(rng.choice(_LETTERS + _DIGITS) for _ in range(length))


def _make_text(rng, language, size):
    size = size or random_size(rng)
    width, height = size
    text = random_text(rng, max(1, min(8, width // 24)))
    image = finish(rng, pictures.draw_text_picture(rng, width, height, text))
    turns = [Turn(_say(rng, language, _Q_TEXT), text, {"kind": "text", "text": text}, "text")]
    if rng.random() < 0.1:
        turns.append(Turn(_say(rng, language, _Q_TEXT_LENGTH), str(len(text)),
                          {"kind": "number", "number": len(text)}, "text"))
    return Example("text", language, [image], None, 0.0, turns)


# -------------------------------------------------------------------------------------------- examples

_SCENES = (scene_single, scene_distinct, scene_many, scene_sized, scene_pair, scene_placed, scene_row)

# task -> (the scenes it is asked of, how it is asked with weights)
_SCENE_TASKS = {
    "shapes": ((scene_single, scene_distinct, scene_distinct, scene_pair), ((ask_shape, 3), (ask_is_there, 1))),
    "colours": ((scene_single, scene_distinct, scene_distinct, scene_pair), ((ask_color, 1),)),
    "sizes": ((scene_sized,), ((ask_size, 1),)),
    "count": ((scene_many,), ((ask_count, 1),)),
}


def _pick_asker(rng, askers):
    return rng.choices([a for a, _ in askers], [w for _, w in askers])[0]


def _ask(rng, language, scene, askers, number, turns=None):
    """Up to `number` turns about the scene with different questions."""
    turns = [] if turns is None else turns
    for _ in range(number * 4):
        if len(turns) >= number:
            break
        turn = _pick_asker(rng, askers)(rng, language, scene)
        if turn is not None and all(turn.question != t.question and
                                    (turn.task, turn.truth) != (t.task, t.truth) for t in turns):
            turns.append(turn)
    return turns


def _make_scene_example(rng, task, language, size, turns):
    scenes, askers = _SCENE_TASKS[task]
    chosen = size or random_size(rng)
    for _ in range(50):
        scene = rng.choice(scenes)(rng, chosen)
        asked = _ask(rng, language, scene, askers, turns)
        if asked:
            return Example(task, language, [finish(rng, scene.image)], None, 0.0, asked)
    raise AssertionError(f"no question of {task} found in 50 scenes")


def make_sitting(rng, language, size=None, turns=None):
    """One scene with turns (3 to 6 unless told) of several tasks."""
    turns = rng.randint(3, 6) if turns is None else turns
    chosen = size or random_size(rng)
    scene = rng.choice(_SCENES)(rng, chosen)
    askers = [pair for _, some in _SCENE_TASKS.values() for pair in some]
    asked = _ask(rng, language, scene, askers, turns)
    while not asked:
        asked = _ask(rng, language, scene, askers, turns)
    return Example("sitting", language, [finish(rng, scene.image)], None, 0.0, asked)


_MAKERS = {"text": _make_text}


def make_example(rng, task, language, size=None, turns=None):
    """An example of one of TASKS. `size` (width, height) forces the pictures' size; `turns` how many turns
    there are at the most (1 to 4 by chance if None; some tasks have fewer)."""
    if task in _SCENE_TASKS:
        return _make_scene_example(rng, task, language, size, rng.randint(1, 4) if turns is None else turns)
    example = _MAKERS[task](rng, language, size)
    if turns is not None:
        example.turns = example.turns[:turns]
    return example


def training_mix():
    """Shares in which the trainer draws tasks; "sitting" is make_sitting."""
    return {"sitting": 0.45, "count": 0.1, "text": 0.2}


def sample(rng, size=None):
    """An example by training_mix(), English or Chinese."""
    mix = training_mix()
    task = rng.choices(list(mix), list(mix.values()))[0]
    language = LANGUAGES[rng.random() < 0.4]
    if task == "sitting":
        return make_sitting(rng, language, size)
    return make_example(rng, task, language, size)
