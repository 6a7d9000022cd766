"""The demo model's tasks: pictures with questions and their one true answer, in English and Chinese.

    example = make_example(rng, task, language)      one of TASKS
    example = make_sitting(rng, language)             one scene, turns of several tasks
    example = sample(rng)                             a task by training_mix(), either language

An Example carries several turns about the same pictures where the task allows it; with turns=1 the one turn
of make_example is of the task asked for. Truths are small JSON objects that judge.is_right understands;
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


_Q_TEXT_JSON = {
    "en": ("Read the text and answer in JSON.", "Give the text as JSON.", "Answer in JSON: what does the text say?",
           "What is written here? Answer in JSON.", "Output the text as JSON."),
    "zh": ("读出文字，用JSON回答。", "用JSON给出图中的文字。", "用JSON回答：图里写了什么？", "以JSON格式输出文字。", "上面写着什么？用JSON回答。"),
}


def ask_text(rng, language, text):
    return Turn(_say(rng, language, _Q_TEXT), text, {"kind": "text", "text": text}, "text")


def ask_text_length(rng, language, text):
    return Turn(_say(rng, language, _Q_TEXT_LENGTH), str(len(text)), {"kind": "number", "number": len(text)}, "text")


def ask_text_json(rng, language, text):
    value = {"text": text}
    return Turn(_say(rng, language, _Q_TEXT_JSON), _json(value), {"kind": "json", "value": value}, "json")


def ask_text_describe(rng, language, text):
    answer = f'The text "{text}".' if language == "en" else f"文字“{text}”。"
    return Turn(_say(rng, language, _Q_DESCRIBE if rng.random() < 0.5 else _Q_DESCRIBE_FULL), answer,
                {"kind": "text", "text": text}, "describe")


_Q_TEXT_PART = {
    "en": {True: ("What is the first character?", "Which character comes first?", "What does the text start with?",
                  "Give the first character of the text."),
           False: ("What is the last character?", "Which character comes last?", "What does the text end with?",
                   "Give the last character of the text.")},
    "zh": {True: ("第一个字符是什么？", "首个字符是什么？", "文字以什么开头？", "请说出第一个字符。"),
           False: ("最后一个字符是什么？", "末尾的字符是什么？", "文字以什么结尾？", "请说出最后一个字符。")},
}
_Q_LINE = {
    "en": ("What does line {k} say?", "Read line {k}.", "What is written in line {k}?", "What is the text in line {k}?",
           "What does the {o} line say?", "Read the {o} line.", "What is written in the {o} line?"),
    "zh": ("第{k}行写了什么？", "请读出第{k}行。", "第{k}行的文字是什么？", "读一下第{k}行。", "第{z}行写着什么？", "第{z}行是什么文字？"),
}
_Q_LINES = {
    "en": ("How many lines of text are there?", "How many lines do you see?", "Count the lines of text."),
    "zh": ("有几行文字？", "图中有多少行文字？", "数一数有几行。"),
}
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def ask_text_part(rng, language, text):
    first = rng.random() < 0.5
    part = text[0 if first else -1]
    return Turn(_say(rng, language, {language: _Q_TEXT_PART[language][first]}), part,
                {"kind": "text", "text": part}, "text")


def ask_line(rng, language, lines):
    i = rng.randrange(len(lines))
    kind = rng.random()
    if kind < 0.08:
        return Turn(_say(rng, language, _Q_LINES), str(len(lines)), {"kind": "number", "number": len(lines)}, "text")
    if kind < 0.3 and i in (0, len(lines) - 1):
        words = (("top", "first") if i == 0 else ("bottom", "last")) if language == "en" else (
            ("最上面一", "首") if i == 0 else ("最下面一", "最后一"))
        o = rng.choice(words)
        question = (_loosen(rng, language, rng.choice(_Q_LINE[language][4:]).format(o=o)) if language == "en" else
                    rng.choice((f"{o}行写了什么？", f"{o}行的文字是什么？", f"请读出{o}行。")))
    else:
        question = _say(rng, language, _Q_LINE, k=i + 1, o=_ORDINALS[i], z="一二三四五"[i])
    return Turn(question, lines[i], {"kind": "text", "text": lines[i]}, "text")


_TEXT_EXTRAS = ((ask_text_part, 3), (ask_text_length, 2), (ask_text_json, 1.5), (ask_text_describe, 2))


def _make_text(rng, language, size, turns):
    width, height = size or random_size(rng)
    length_max = max(1, min(8, width // 24))
    if turns != 1 and height >= 160 and rng.random() < 0.35:
        lines = [random_text(rng, length_max) for _ in range(rng.randint(2, min(5, height // 56)))]
        image = finish(rng, pictures.draw_lines_picture(rng, width, height, lines))
        return Example("text", language, [image], None, 0.0, _ask(rng, language, lines, ((ask_line, 1),),
                                                                 turns or len(lines)))
    text = random_text(rng, length_max)
    image = finish(rng, pictures.draw_text_picture(rng, width, height, text))
    asked = [ask_text(rng, language, text)]
    if turns != 1 and rng.random() < 0.35:
        asked = _ask(rng, language, text, _TEXT_EXTRAS, turns or rng.randint(2, 3), asked)
    return Example("text", language, [image], None, 0.0, asked)


# -------------------------------------------------------------------------------------------- position

_Q_WHERE = {
    "en": ("Where is the {x}?", "Where is the {x} in the picture?", "Where do you see the {x}?",
           "Where can I find the {x}?", "In which part of the picture is the {x}?", "Where is the {x} located?",
           "What is the position of the {x}?", "Which part of the image shows the {x}?",
           "Tell me where the {x} is.", "Where in the image is the {x}?", "Whereabouts is the {x}?"),
    "zh": ("{x}在哪里？", "{x}在哪儿？", "{x}在图中的什么位置？", "{x}位于哪里？", "图中的{x}在什么位置？", "{x}在图的哪个部分？",
           "请说出{x}的位置。", "{x}在什么地方？", "图里的{x}在哪里？", "{x}在画面的哪个位置？"),
}
_Q_WHAT_AT = {
    "en": ("What is {p}?", "What do you see {p}?", "Which shape is {p}?", "What is {p} of the picture?",
           "What can you see {p}?", "What is drawn {p}?", "Which object is {p}?", "What shape is {p}?",
           "Name the thing {p}.", "What's {p}?"),
    "zh": ("{p}是什么？", "{p}有什么？", "图的{p}是什么？", "图中{p}是什么图形？", "{p}的图形是什么？", "图片{p}有什么？",
           "你在{p}看到了什么？", "{p}画的是什么？", "位于{p}的是什么？", "{p}是哪个图形？"),
}
_PLACE_PHRASES = {
    "top left": ("at the top left", "左上角"), "top": ("at the top", "上方"),
    "top right": ("at the top right", "右上角"), "left": ("on the left", "左边"),
    "center": ("in the center", "中间"), "right": ("on the right", "右边"),
    "bottom left": ("at the bottom left", "左下角"), "bottom": ("at the bottom", "下方"),
    "bottom right": ("at the bottom right", "右下角"),
}
_Q_RELATION = {
    "en": ("Where is the {x} relative to the {y}?", "Where is the {x} compared to the {y}?",
           "Where is the {x}, seen from the {y}?", "How does the {x} lie relative to the {y}?",
           "In which direction from the {y} is the {x}?", "Where is the {x} with respect to the {y}?",
           "On which side of the {y} is the {x}?", "What is the position of the {x} relative to the {y}?",
           "Relative to the {y}, where is the {x}?", "Where does the {x} lie in relation to the {y}?"),
    "zh": ("{x}在{y}的哪边？", "{x}在{y}的什么方向？", "{x}相对于{y}在哪里？", "{x}位于{y}的哪个方向？", "{x}在{y}的什么位置？",
           "相对于{y}，{x}在哪里？", "{x}在{y}的哪一侧？", "从{y}看，{x}在哪个方向？", "{x}在{y}的哪个方位？", "以{y}为参照，{x}在哪边？"),
}
_Q_EITHER = {
    "en": {True: ("Is the {x} to the left or to the right of the {y}?", "Is the {x} left or right of the {y}?",
                  "Left or right: where is the {x} relative to the {y}?",
                  "Does the {x} lie to the left or to the right of the {y}?"),
           False: ("Is the {x} above or below the {y}?", "Above or below: where is the {x} relative to the {y}?",
                   "Does the {x} lie above or below the {y}?", "Is the {x} over or under the {y}?")},
    "zh": {True: ("{x}在{y}的左边还是右边？", "{x}是在{y}的左边还是右边？", "{x}位于{y}的左侧还是右侧？"),
           False: ("{x}在{y}的上面还是下面？", "{x}是在{y}的上方还是下方？", "{x}位于{y}的上面还是下面？")},
}
_RELATION_PHRASES = {
    "left": (("to the left of", "left of", "on the left of", "on the left side of"), ("左边", "左侧")),
    "right": (("to the right of", "right of", "on the right of", "on the right side of"), ("右边", "右侧")),
    "above": (("above", "above", "over", "on top of"), ("上面", "上方")),
    "below": (("below", "below", "under", "beneath"), ("下面", "下方")),
}
_Q_IS_RELATION = {
    "en": ("Is the {x} {r} the {y}?", "Is the {x} {r} the {y} in this picture?", "Does the {x} lie {r} the {y}?",
           "Is it true that the {x} is {r} the {y}?", "Do you see the {x} {r} the {y}?",
           "The {x} is {r} the {y}, right?", "Would you say the {x} is {r} the {y}?"),
    "zh": ("{x}在{y}的{r}吗？", "{x}是在{y}{r}吗？", "{x}是不是在{y}的{r}？", "图中{x}在{y}的{r}吗？", "{x}位于{y}的{r}吗？"),
}
_Q_WHAT_RELATION = {
    "en": ("What is {r} the {y}?", "Which shape is {r} the {y}?", "What do you see {r} the {y}?",
           "Which object is {r} the {y}?", "What lies {r} the {y}?", "What can be seen {r} the {y}?",
           "What's {r} the {y}?"),
    "zh": ("{y}的{r}是什么？", "{y}{r}有什么？", "什么在{y}的{r}？", "哪个图形在{y}的{r}？", "位于{y}{r}的是什么？"),
}


def place_of(scene, thing, loose=False):
    """The one of PLACES that the thing is in, None where it could be called otherwise."""
    cells = []
    for c, length in zip(thing.center, (scene.width, scene.height)):
        f = c / length
        low, high = (0.4, 0.6) if loose else (0.30, 0.70)
        if f <= low:
            cells.append(0)
        elif f >= high:
            cells.append(2)
        elif 0.39 <= f <= 0.61 or loose:
            cells.append(1)
        else:
            return None
    return PLACES[cells[1] * 3 + cells[0]]


def relation_of(a, b):
    """Where a lies relative to b, one of RELATIONS; None unless one axis clearly wins and the boxes are apart."""
    dx, dy = a.center[0] - b.center[0], a.center[1] - b.center[1]
    if abs(dx) >= 1.7 * abs(dy) and (a.box[2] <= b.box[0] or b.box[2] <= a.box[0]):
        return "left" if dx < 0 else "right"
    if abs(dy) >= 1.7 * abs(dx) and (a.box[3] <= b.box[1] or b.box[3] <= a.box[1]):
        return "above" if dy < 0 else "below"
    return None


def ask_place(rng, language, scene):
    thing = rng.choice(scene.things)
    place = place_of(scene, thing)
    if place is None:
        return None
    if rng.random() < 0.25:  # what is there, if nothing else comes near that place
        column, row = PLACES.index(place) % 3, PLACES.index(place) // 3
        for other in scene.things:
            if other is thing:
                continue
            f, g = other.center[0] / scene.width, other.center[1] / scene.height
            near_x = f < 0.5 if column == 0 else f > 0.5 if column == 2 else (0.25 < f < 0.75 or row != 1)
            near_y = g < 0.5 if row == 0 else g > 0.5 if row == 2 else (0.25 < g < 0.75 or column != 1)
            if near_x and near_y:
                return None
        question = _say(rng, language, _Q_WHAT_AT, p=_PLACE_PHRASES[place][_en(language)])
        return Turn(question, _the(language, thing), _object_truth(thing), "position")
    x = _refer(rng, language, scene, thing)
    if x is None:
        return None
    return Turn(_say(rng, language, _Q_WHERE, x=x), PLACE_NAMES[place][_en(language)],
                {"kind": "place", "place": place}, "position")


_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def ask_relation(rng, language, scene):
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(scene.things, 2)
    relation = relation_of(a, b)
    if relation is None:
        return None
    x, y = _refer(rng, language, scene, a), _refer(rng, language, scene, b)
    if x is None or y is None:
        return None
    e = _en(language)
    kind = rng.random()
    if kind < 0.2:
        yes = rng.random() < 0.5
        r = relation if yes else _OPPOSITE[relation] if rng.random() < 0.6 else rng.choice(
            [q for q in RELATIONS if q != relation])
        question = _say(rng, language, _Q_IS_RELATION, x=x, y=y, r=rng.choice(_RELATION_PHRASES[r][e]))
        return Turn(question, _yes_no(language, yes), {"kind": "yes_no", "yes": yes}, "position")
    if kind < 0.35:
        if any(t is not a and t is not b and relation_of(t, b) in (None, relation) for t in scene.things):
            return None
        question = _say(rng, language, _Q_WHAT_RELATION, y=y, r=rng.choice(_RELATION_PHRASES[relation][e]))
        return Turn(question, _the(language, a), _object_truth(a), "position")
    if kind < 0.5:
        templates = {language: _Q_EITHER[language][relation in ("left", "right")]}
    else:
        templates = _Q_RELATION
    return Turn(_say(rng, language, templates, x=x, y=y), RELATION_NAMES[relation][e],
                {"kind": "relation", "relation": relation}, "position")


# ------------------------------------------------------------------------------------------------- box

_Q_BOX = {
    "en": ("Where is the {x}? Answer with its bounding box as JSON.", "Give the bounding box of the {x} as JSON.",
           "Locate the {x} and output its bbox in JSON.", "Detect the {x}. Output JSON.",
           "Find the {x} and report its bbox coordinates in JSON format.", "Return the bounding box of the {x}.",
           "Locate the {x}, output the bbox_2d coordinates in JSON.", "Box the {x} as JSON.",
           "What is the bounding box of the {x}?", "Ground the {x}: give bbox_2d and label.",
           "Where is the {x} as JSON?", "Show me the box around the {x} in JSON."),
    "zh": ("{x}在哪里？请用JSON给出边界框。", "请用JSON给出{x}的边界框。", "定位{x}，以JSON格式输出bbox。", "检测{x}，输出JSON。",
           "找出{x}并以JSON格式给出坐标。", "返回{x}的边界框。", "{x}的边界框是什么？", "定位图中的{x}，输出bbox_2d坐标。",
           "框出{x}，用JSON回答。", "请给出{x}的bbox_2d和label。", "用JSON格式给出{x}的位置坐标。"),
}


def relative_box(scene, box):
    """A pixel box in thousandths of the picture's sides, as Qwen3-VL gives them."""
    return [round(box[0] * 1000 / scene.width), round(box[1] * 1000 / scene.height),
            round(box[2] * 1000 / scene.width), round(box[3] * 1000 / scene.height)]


def ask_box(rng, language, scene):
    thing = rng.choice(scene.things)
    x = _refer(rng, language, scene, thing, full=0.65)
    if x is None:
        return None
    box = relative_box(scene, thing.box)
    label = thing_name(language, thing.shape, thing.color)
    return Turn(_say(rng, language, _Q_BOX, x=x), _json({"bbox_2d": box, "label": label}),
                {"kind": "box", "box": box, "shape": thing.shape, "color": thing.color}, "box")


def _json(value):
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------ describing, JSON

_Q_DESCRIBE = {
    "en": ("What do you see?", "What is in the picture?", "What's in the picture?", "What is this?",
           "What does the picture show?", "What can you see?", "What is shown here?", "What's in this image?",
           "What do you see in this image?", "What is in the image?", "Tell me what you see.",
           "What did I draw?", "What's this?", "List what you see."),
    "zh": ("你看到了什么？", "图里有什么？", "图中有什么？", "这是什么？", "图片里有什么？", "图上画了什么？", "这张图显示了什么？",
           "图中都有什么？", "画面里有什么？", "说说你看到了什么。", "我画了什么？", "图里都有哪些图形？"),
}
_Q_DESCRIBE_FULL = {
    "en": ("Describe the picture.", "Describe this image.", "Please describe the picture.", "Describe what you see.",
           "Describe the image in two sentences.", "Give a description of the picture.",
           "Can you describe this picture?", "Describe the image in one or two sentences.", "Describe this.",
           "Write a short description of the image.", "Describe the picture in detail."),
    "zh": ("描述这张图片。", "请描述这张图。", "描述一下这张图片。", "请描述图片的内容。", "用一两句话描述这张图。", "用两句话描述图片。",
           "你能描述这张图吗？", "请详细描述这张图片。", "描述图中的内容。", "写一段简短的图片描述。"),
}


def _left_to_right(scene):
    """The things ordered from left to right; None where two stand nearly over each other."""
    things = sorted(scene.things, key=lambda t: t.center[0])
    for a, b in zip(things, things[1:]):
        if b.center[0] - a.center[0] < 0.05 * scene.width:
            return None
    return things


def _join(language, phrases):
    if language == "en":
        return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return phrases[0] if len(phrases) == 1 else "、".join(phrases[:-1]) + "和" + phrases[-1]


def _grouped(things):
    groups = {}
    for t in things:
        groups[t.kind] = groups.get(t.kind, 0) + 1
    return groups


def ask_describe(rng, language, scene):
    things = _left_to_right(scene)
    if things is None or len(things) > 6:
        return None
    groups = _grouped(things)
    listed = _join(language, [_things_named(language, s, c, n) for (s, c), n in groups.items()])
    truth = {"kind": "scene", "things": [{"shape": s, "color": c, "number": n} for (s, c), n in groups.items()]}
    if rng.random() < 0.6:
        return Turn(_say(rng, language, _Q_DESCRIBE), _sentence(language, listed), truth, "describe")
    truth["background"] = "dark" if scene.dark else "light"
    if language == "en":
        answer = f"The picture shows {listed}. The background is {truth['background']}."
    else:
        answer = f"图中有{listed}。背景是{'深色' if scene.dark else '浅色'}的。"
    return Turn(_say(rng, language, _Q_DESCRIBE_FULL), answer, truth, "describe")


_Q_JSON_LIST = {
    "en": ("List the shapes from left to right as JSON.", "Describe the shapes in JSON.",
           "List all shapes with their colours as JSON.", "Answer in JSON: which shapes are in the picture?",
           "Output the shapes and colours as JSON.", "Give me a JSON list of the shapes, left to right.",
           "What shapes do you see? Answer in JSON.", "Return JSON with shape and colour of each object.",
           "What do you see? Answer in JSON.", "Write the shapes of this picture as JSON.",
           "Give the shapes in JSON format."),
    "zh": ("从左到右用JSON列出图形。", "用JSON描述图中的图形。", "用JSON列出所有图形和颜色。", "用JSON回答：图中有哪些图形？",
           "以JSON格式输出图形和颜色。", "请给出图形的JSON列表，从左到右。", "你看到了哪些图形？用JSON回答。", "返回每个图形的形状和颜色，JSON格式。",
           "图里有什么？用JSON回答。", "请以JSON格式给出图中的图形。"),
}
_Q_JSON_COUNTS = {
    "en": ("Count each kind of shape and answer in JSON.", "How many of each shape are there? Answer in JSON.",
           "Count the shapes by kind. Output JSON.", "Give the number of each shape as JSON.",
           "Return a JSON object with the count of each shape.", "Count every shape; answer as JSON.",
           "As JSON: how many of each shape?", "Output the shape counts as JSON.",
           "Give me the counts of the shapes in JSON format.", "Tally the shapes as JSON."),
    "zh": ("数出每种图形的数量，用JSON回答。", "每种图形各有几个？用JSON回答。", "按形状计数，输出JSON。", "用JSON给出每种图形的数量。",
           "返回每种图形数量的JSON。", "统计各种图形的个数，用JSON回答。", "以JSON格式输出图形的数量。", "各种形状分别有多少个？用JSON回答。",
           "请用JSON统计图形数量。", "JSON回答：每种图形有几个？"),
}


def ask_json(rng, language, scene):
    things = _left_to_right(scene)
    if things is None or len(things) > 6:
        return None
    if rng.random() < 0.65:
        value = {"shapes": [{"shape": t.shape, "color": t.color} for t in things]}
        question = _say(rng, language, _Q_JSON_LIST)
    else:
        value = {}
        for t in things:
            value[t.shape] = value.get(t.shape, 0) + 1
        question = _say(rng, language, _Q_JSON_COUNTS)
    return Turn(question, _json(value), {"kind": "json", "value": value}, "json")


# ---------------------------------------------------------------------------------------------- charts

_LABEL_SETS = (
    ("A", "B", "C", "D", "E", "F", "G", "H"),
    ("A", "B", "C", "D", "E", "F"),
    ("Q1", "Q2", "Q3", "Q4"),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    ("2019", "2020", "2021", "2022", "2023", "2024", "2025"),
    ("X", "Y", "Z"),
    ("cat", "dog", "fish", "bird", "cow", "pig"),
    ("Tea", "Milk", "Beer", "Cola", "Wine"),
)
_TITLES = ("Sales", "Visits", "Rain", "Points", "Votes", "Units")

_Q_TALLEST = {
    "en": ("Which bar is the tallest?", "Which bar is the highest?", "Which has the highest value?",
           "Which label has the tallest bar?", "What is the tallest bar?", "Which one has the largest value?",
           "Which category is the highest?", "Which bar has the greatest value?", "Name the tallest bar.",
           "Where is the maximum?", "Which one is the biggest in the chart?"),
    "zh": ("哪个柱子最高？", "哪一个最高？", "最高的柱子是哪个？", "哪个的数值最大？", "哪一项最大？", "哪个类别的值最高？", "图中最高的柱子是什么？",
           "最大值是哪一项？", "哪根柱子最高？", "请说出最高的柱子。"),
}
_Q_SHORTEST = {
    "en": ("Which bar is the shortest?", "Which bar is the lowest?", "Which has the lowest value?",
           "Which label has the shortest bar?", "What is the shortest bar?", "Which one has the smallest value?",
           "Which category is the lowest?", "Which bar has the least value?", "Name the shortest bar.",
           "Where is the minimum?", "Which one is the smallest in the chart?"),
    "zh": ("哪个柱子最矮？", "哪一个最低？", "最矮的柱子是哪个？", "哪个的数值最小？", "哪一项最小？", "哪个类别的值最低？", "图中最矮的柱子是什么？",
           "最小值是哪一项？", "哪根柱子最短？", "请说出最矮的柱子。"),
}
_Q_VALUE = {
    "en": ("What is the value of {x}?", "What value does {x} have?", "How high is {x}?", "How much is {x}?",
           "What is the value of the bar {x}?", "Read the value of {x}.", "What number does {x} reach?",
           "How tall is the bar {x}?", "Give the value for {x}.",
           "What does the bar {x} show?"),
    "zh": ("{x}的值是多少？", "{x}是多少？", "{x}的数值是多少？", "{x}有多高？", "柱子{x}的值是多少？", "请读出{x}的值。", "{x}对应的数值是多少？",
           "{x}达到多少？", "图中{x}的值是多少？", "{x}的数据是多少？"),
}
_Q_HIGHEST_VALUE = {
    "en": ("What is the highest value?", "What is the largest value in the chart?", "What is the maximum value?",
           "How high is the tallest bar?", "What value does the tallest bar have?"),
    "zh": ("最大值是多少？", "图中最大的数值是多少？", "最高的柱子的值是多少？", "最高值是多少？", "最高的柱子有多高？"),
}
_Q_TREND = {
    "en": ("What is the trend?", "Do the bars rise or fall from left to right?", "How do the values develop?",
           "Is the trend rising or falling?", "Describe the trend.", "Are the values rising or falling?",
           "Do the values go up or down?", "What trend does the chart show?", "Which way do the bars go?",
           "How do the bars change from left to right?"),
    "zh": ("趋势是什么？", "柱子从左到右是上升还是下降？", "数值怎样变化？", "趋势是上升还是下降？", "描述一下趋势。", "数值是在上升还是下降？", "图表显示了什么趋势？",
           "从左到右数值如何变化？", "整体趋势如何？", "柱状图的走势是什么？"),
}
_Q_BARS = {
    "en": ("How many bars are there?", "How many bars does the chart have?", "Count the bars.",
           "How many bars do you see?", "What is the number of bars?", "How many bars are in the chart?"),
    "zh": ("有几个柱子？", "图中有几根柱子？", "一共有多少个柱子？", "数一数有几个柱子。", "柱状图有几根柱子？", "有多少根柱子？"),
}
_Q_HIGHER_OF = {
    "en": ("Which is higher, {x} or {y}?", "Which bar is taller, {x} or {y}?", "Is {x} or {y} higher?",
           "Which has the larger value, {x} or {y}?", "Which is greater: {x} or {y}?", "{x} or {y}: which is higher?"),
    "zh": ("{x}和{y}哪个高？", "{x}和{y}哪个更高？", "哪个更高，{x}还是{y}？", "{x}和{y}哪个数值更大？", "是{x}高还是{y}高？", "{x}与{y}哪个大？"),
}
_Q_CHART_JSON = {
    "en": ("Give the values of the chart as JSON.", "Answer in JSON: what are the values of the bars?",
           "Output the chart's data as JSON.", "Read the bars and answer in JSON.", "Return the data as JSON."),
    "zh": ("用JSON给出图表的数值。", "用JSON回答：每个柱子的值是多少？", "以JSON格式输出图表数据。", "读出柱状图的数据，用JSON回答。", "用JSON返回数据。"),
}


def _trend_of(values):
    pairs = list(zip(values, values[1:]))
    if all(a < b for a, b in pairs):
        return "rising"
    if all(a > b for a, b in pairs):
        return "falling"
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        return "mixed"
    return None


def random_chart(rng, width, height):
    size = pictures.chart_font_size(width, height)
    printed = rng.random() < 0.5
    axis = not printed or rng.random() < 0.4
    number = rng.choice((2, 3, 3, 4, 4, 5, 5, 6))
    while number > 2 and (width - 16 - (3 * size if axis else 0)) / number < 1.9 * size:
        number -= 1
    column = (width - 16 - (2.4 * size if axis else 0)) / number
    for _ in range(40):
        labels = rng.choice(_LABEL_SETS)
        if len(labels) >= number and max(pictures.label_width(x, size) for x in labels) <= column - 3:
            break
    else:
        labels = _LABEL_SETS[0]
    if rng.random() < 0.6:
        start = rng.randint(0, len(labels) - number)
        labels = list(labels[start:start + number])
    else:
        labels = rng.sample(labels, number)
    ticks = rng.choice((4, 5, 5, 6))
    step = rng.choice((1, 2, 5, 10, 10, 20, 50, 100) if width >= 256 else (1, 2, 5, 10, 20))
    unit = 1 if printed else step
    top = step * ticks
    # Least difference of the values that are told apart by their height alone.
    apart = max(unit, -(-top // 12)) if printed else unit
    kind = rng.random()
    for _ in range(60):
        values = [rng.randint(1, top // unit) * unit for _ in range(number)]
        if kind < 0.34:
            values.sort()
        elif kind < 0.62:
            values.sort(reverse=True)
        ranked = sorted(values)
        if ranked[-1] - ranked[-2] < apart or ranked[1] - ranked[0] < apart or ranked[0] * 14 < top:
            continue
        if printed and any(0 < abs(a - b) < apart for a in values for b in values):
            continue
        if kind < 0.62 and _trend_of(values) is None:
            continue
        break
    else:
        values = [unit * (1 + k) * (top // unit // (number + 1) or 1) for k in range(number)]
    title = rng.choice(_TITLES) if height >= 224 and rng.random() < 0.25 else ""
    return pictures.Chart(labels, values, step, ticks, printed, axis, title)


def ask_chart(rng, language, chart):
    e = _en(language)
    values, labels = chart.values, chart.labels
    ranked = sorted(values)
    kind = rng.random()

    def labelled(question, label):
        return Turn(question, label, {"kind": "label", "label": label, "labels": list(labels)}, "chart")

    def numbered(question, number):
        return Turn(question, str(number), {"kind": "number", "number": number}, "chart")

    if kind < 0.22:
        return labelled(_say(rng, language, _Q_TALLEST), labels[values.index(ranked[-1])]) if (
            ranked[-1] > ranked[-2]) else None
    if kind < 0.36:
        return labelled(_say(rng, language, _Q_SHORTEST), labels[values.index(ranked[0])]) if (
            ranked[0] < ranked[1]) else None
    if kind < 0.64:
        i = rng.randrange(len(labels))
        return numbered(_say(rng, language, _Q_VALUE, x=labels[i]), values[i])
    if kind < 0.70:
        return numbered(_say(rng, language, _Q_HIGHEST_VALUE), ranked[-1])
    if kind < 0.88:
        trend = _trend_of(values)
        if len(values) < 3 or trend is None:
            return None
        return Turn(_say(rng, language, _Q_TREND), TREND_NAMES[trend][e], {"kind": "trend", "trend": trend}, "chart")
    if kind < 0.93:
        i, j = rng.sample(range(len(labels)), 2)
        if values[i] == values[j]:
            return None
        return labelled(_say(rng, language, _Q_HIGHER_OF, x=labels[i], y=labels[j]),
                        labels[i if values[i] > values[j] else j])
    return numbered(_say(rng, language, _Q_BARS), len(labels))


def ask_chart_json(rng, language, chart):
    value = dict(zip(chart.labels, chart.values))
    return Turn(_say(rng, language, _Q_CHART_JSON), _json(value), {"kind": "json", "value": value}, "json")


def ask_chart_describe(rng, language, chart):
    n = len(chart.labels)
    question = _say(rng, language, _Q_DESCRIBE if rng.random() < 0.5 else _Q_DESCRIBE_FULL)
    answer = f"A bar chart with {n} bars." if language == "en" else f"一张有{n}个柱子的柱状图。"
    return Turn(question, answer, {"kind": "chart", "number": n}, "describe")


_CHART_ASKERS = ((ask_chart, 12), (ask_chart_json, 1), (ask_chart_describe, 1))


def _make_chart(rng, language, size, turns):
    width, height = size or random_size(rng, 192)
    chart = random_chart(rng, width, height)
    image = finish(rng, pictures.draw_chart(rng, width, height, chart), blur=False)
    asked = _ask(rng, language, chart, ((ask_chart, 1),), 1)
    asked = _ask(rng, language, chart, _CHART_ASKERS, rng.randint(3, 7) if turns is None else turns, asked)
    return Example("chart", language, [image], None, 0.0, asked)


# --------------------------------------------------------------------------------------------- compare

_Q_MORE = {
    "en": ("Which picture has more {x}?", "Which image has more {x}?", "Which picture shows more {x}?",
           "In which picture are there more {x}?", "Where are more {x}: picture 1 or picture 2?",
           "Which of the two pictures has more {x}?", "Which one has more {x}?", "Which picture contains more {x}?",
           "Are there more {x} in picture 1 or in picture 2?", "Compare the pictures: which has more {x}?"),
    "zh": ("哪张图里的{x}更多？", "哪一张图的{x}多？", "哪张图有更多的{x}？", "两张图中哪张{x}更多？", "哪张图片的{x}比较多？", "第几张图的{x}更多？",
           "{x}更多的是哪张图？", "哪幅图里{x}更多？", "比较两张图，哪张的{x}更多？", "第1张和第2张图，哪张的{x}更多？"),
}
_Q_FEWER = {
    "en": ("Which picture has fewer {x}?", "Which image has fewer {x}?", "Which picture shows fewer {x}?",
           "In which picture are there fewer {x}?", "Which of the two pictures has fewer {x}?",
           "Which one has fewer {x}?", "Which picture contains fewer {x}?",
           "Are there fewer {x} in picture 1 or in picture 2?"),
    "zh": ("哪张图里的{x}更少？", "哪一张图的{x}少？", "两张图中哪张{x}更少？", "哪张图片的{x}比较少？", "第几张图的{x}更少？", "{x}更少的是哪张图？",
           "哪幅图里{x}更少？", "比较两张图，哪张的{x}更少？"),
}
_Q_MOST = {
    "en": ("Which picture has the most {x}?", "Which image has the most {x}?", "Which picture shows the most {x}?",
           "In which picture are there the most {x}?", "Which of the pictures has the most {x}?",
           "Where are the most {x}?", "Which one has the most {x}?", "Which picture contains the most {x}?",
           "Find the picture with the most {x}.", "Compare the pictures: which has the most {x}?"),
    "zh": ("哪张图里的{x}最多？", "哪一张图的{x}最多？", "哪张图有最多的{x}？", "这些图中哪张{x}最多？", "哪张图片的{x}最多？", "第几张图的{x}最多？",
           "{x}最多的是哪张图？", "哪幅图里{x}最多？", "比较这些图，哪张的{x}最多？", "找出{x}最多的图。"),
}
_Q_FEWEST = {
    "en": ("Which picture has the fewest {x}?", "Which image has the fewest {x}?",
           "Which picture shows the fewest {x}?", "In which picture are there the fewest {x}?",
           "Which of the pictures has the fewest {x}?", "Which one has the fewest {x}?",
           "Find the picture with the fewest {x}."),
    "zh": ("哪张图里的{x}最少？", "哪一张图的{x}最少？", "这些图中哪张{x}最少？", "哪张图片的{x}最少？", "第几张图的{x}最少？", "{x}最少的是哪张图？",
           "找出{x}最少的图。"),
}
_Q_WHICH_SHOWS = {
    "en": ("Which picture shows {a}?", "Which image shows {a}?", "In which picture is there {a}?",
           "Which picture has {a}?", "Which picture contains {a}?", "Where is {a}: in which picture?",
           "Which of the pictures shows {a}?", "Find the picture with {a}.", "In which image do you see {a}?",
           "Which one shows {a}?"),
    "zh": ("哪张图里有{x}？", "哪一张图有{x}？", "哪张图片显示了{x}？", "{x}在哪张图里？", "第几张图有{x}？", "哪幅图中有{x}？", "找出有{x}的图。",
           "哪张图包含{x}？", "{x}出现在第几张图里？", "这些图中哪张有{x}？"),
}
_Q_COUNT_IN = {
    "en": ("How many {x} are in picture {k}?", "How many {x} does picture {k} show?", "Count the {x} in picture {k}.",
           "How many {x} do you see in image {k}?", "In picture {k}, how many {x} are there?"),
    "zh": ("第{k}张图里有几个{x}？", "第{k}张图有多少个{x}？", "数一数第{k}张图里的{x}。", "图{k}中有几个{x}？", "第{k}张图片里有几个{x}？"),
}
_Q_CHANGED = {
    "en": ("What changed?", "What changed between the two pictures?", "What is the difference between the pictures?",
           "What is different in the second picture?", "What has changed from picture 1 to picture 2?",
           "Find the difference.", "How do the two pictures differ?", "What's the difference?",
           "Compare the two pictures. What changed?", "Spot the difference.", "What is new in the second image?"),
    "zh": ("有什么变化？", "两张图之间有什么变化？", "两张图有什么不同？", "第二张图有什么不同？", "从第一张到第二张发生了什么变化？", "找出不同之处。",
           "两张图片有什么区别？", "什么改变了？", "比较两张图，有什么变化？", "有什么区别？"),
}
_Q_SAME = {
    "en": ("Are the two pictures the same?", "Do both pictures show the same?", "Are these pictures equal?",
           "Are the pictures identical?", "Is the second picture the same as the first?"),
    "zh": ("两张图一样吗？", "两张图片相同吗？", "这两张图是一样的吗？", "第二张图和第一张一样吗？", "两张图是否相同？"),
}


def _picture_answer(language, index):
    return f"Picture {index}." if language == "en" else f"第{index}张。"


def _compare_size(rng, number):
    return random_size(rng, 128, 256 if number == 2 else 224)


def _make_compare(rng, language, size, turns):
    turns = rng.randint(2, 4) if turns is None else turns
    if rng.random() < 0.42:
        return _make_changed(rng, language, size, turns)
    number = rng.choice((2, 2, 3, 4))
    shape = rng.choice(SHAPES)
    others = [s for s in SHAPES if s != shape and not _doubtful(shape, {s}) and not _doubtful(s, {shape})]
    counts = rng.sample(range(1 if rng.random() < 0.7 else 0, 7), number)
    if rng.random() < 0.6:
        counts = [min(c, 5) for c in counts]
    sizes = [size or _compare_size(rng, number)] * number
    if size is None and rng.random() < 0.3:
        sizes = [_compare_size(rng, number) for _ in range(number)]
    dark = rng.random() < pictures.DARK_BACKGROUND_SHARE
    one_color = rng.choice(palette(dark)) if rng.random() < 0.4 else None
    scenes = []
    for count, (width, height) in zip(counts, sizes):
        back = backdrop(rng, width, height, dark=dark)
        kinds = [(shape, one_color or rng.choice(palette(dark))) for _ in range(count)]
        some = rng.choice((0, 1, 1, 2)) if count else rng.choice((1, 2))
        kinds += [(rng.choice(others), rng.choice(palette(dark))) for _ in range(some)]
        base = min(_radius_base(width, height, len(kinds)) * 0.85, 0.2 * min(width, height))
        spots = scatter(rng, width, height, [max(RADIUS_MIN, base * rng.uniform(0.65, 1.0)) for _ in kinds])
        scenes.append(draw_scene(rng, back, kinds, spots))
    askers = ((_ask_more, 5), (_ask_which_shows, 4), (_ask_count_in, 2))
    asked = []
    while not asked:
        asked = _ask(rng, language, scenes, askers, turns)
    return Example("compare", language, [finish(rng, s.image) for s in scenes], None, 0.0, asked)


def _ask_more(rng, language, scenes):
    shape = rng.choice(sorted({t.shape for s in scenes for t in s.things}))
    if any(_doubtful(shape, {t.shape for t in s.things}) for s in scenes):
        return None
    counts = [sum(t.shape == shape for t in s.things) for s in scenes]
    more = rng.random() < 0.65
    best = max(counts) if more else min(counts)
    if counts.count(best) != 1:
        return None
    if len(scenes) == 2:
        templates = _Q_MORE if more else _Q_FEWER
    else:
        templates = _Q_MOST if more else _Q_FEWEST
    index = counts.index(best) + 1
    return Turn(_say(rng, language, templates, x=_shape_asked(rng, language, shape, plural=True)),
                _picture_answer(language, index), {"kind": "picture", "picture": index}, "compare")


def _ask_which_shows(rng, language, scenes):
    index = rng.randrange(len(scenes))
    if not scenes[index].things:
        return None
    thing = rng.choice(scenes[index].things)
    others = [t for i, s in enumerate(scenes) if i != index for t in s.things]
    if rng.random() < 0.5 and all(t.shape != thing.shape for t in others):
        if _doubtful(thing.shape, {t.shape for t in others}):
            return None
        x = _shape_asked(rng, language, thing.shape)
    elif all(t.kind != thing.kind for t in others):
        x = _asked(rng, language, thing.shape, thing.color)
    else:
        return None
    fill = {"a": _article(x)} if language == "en" else {"x": x}
    return Turn(_say(rng, language, _Q_WHICH_SHOWS, **fill), _picture_answer(language, index + 1),
                {"kind": "picture", "picture": index + 1}, "compare")


def _ask_count_in(rng, language, scenes):
    index = rng.randrange(len(scenes))
    things = scenes[index].things
    if not things:
        return None
    shape = rng.choice(things).shape
    if _doubtful(shape, {t.shape for t in things}):
        return None
    count = sum(t.shape == shape for t in things)
    x = _shape_asked(rng, language, shape, plural=True)
    return Turn(_say(rng, language, _Q_COUNT_IN, x=x, k=index + 1), str(count),
                {"kind": "number", "number": count}, "compare")


_CHANGES = ("added", "removed", "recolored", "moved", "resized", "nothing")


def _make_changed(rng, language, size, turns):
    width, height = size or _compare_size(rng, 2)
    back = backdrop(rng, width, height)
    colors = palette(back.dark)
    change = rng.choices(_CHANGES, (5, 5, 5, 5, 2, 1))[0]
    number = rng.choice((1, 2, 2, 3, 3, 4)) + (change == "removed")
    kinds = _distinct_kinds(rng, number + 1, back.dark)
    base = min(_radius_base(width, height, number + 1) * 0.85, 0.19 * min(width, height))
    radii = [max(RADIUS_MIN, base * rng.uniform(0.7, 1.0)) for _ in range(number + 1)]
    direction = rng.choice(DIRECTIONS)
    if change == "resized":
        radii[0] = base
    spots = scatter(rng, width, height, radii)
    seeds = [rng.getrandbits(32) for _ in range(number + 1)]
    sketch = pictures.random_sketch(rng, back)
    shades = [pictures.visible_color(rng, c, back) for _, c in kinds]

    def draw(things):
        image = back.image.copy()
        for (shape, _), shade, (x, y, radius), seed in things:
            stamp_rng = pictures.random.Random(seed)
            layers, _ = pictures.make_stamp(stamp_rng, shape, radius, sketch, shade, back)
            pictures.put_stamp(image, layers, x, y)
        return finish(rng, image)

    before = [[kinds[i], shades[i], spots[i], seeds[i]] for i in range(number)]
    after = [list(t) for t in before]
    (shape, color), (x, y, radius) = kinds[0], spots[0]
    name = thing_name(language, shape, color)
    truth = {"kind": "change", "change": change, "shape": shape, "color": color}
    en = language == "en"
    if change == "added":
        before.pop(0)
        if not before:
            before.append([kinds[number], shades[number], spots[number], seeds[number]])
            after.append(before[0])
        answer = f"{_sentence('en', _article(name) + ' was added')}" if en else f"多了一个{name}。"
    elif change == "removed":
        after.pop(0)
        answer = f"The {name} was removed." if en else f"少了一个{name}。"
    elif change == "recolored":
        new = rng.choice([c for c in colors if c != color])
        after[0][0], after[0][1] = (shape, new), pictures.visible_color(rng, new, back)
        truth["to"] = new
        if en:
            answer = f"The {SHAPE_NAMES[shape][0]} changed from {color} to {new}."
        else:
            answer = f"{SHAPE_NAMES[shape][2]}从{COLOR_NAMES[color][1]}变成了{COLOR_NAMES[new][1]}。"
    elif change == "moved":
        moved = _moved_spots(rng, width, height, spots[1:number], radius, direction)
        if moved is None:
            return _make_changed(rng, language, size, turns)
        before[0][2], after[0][2] = moved
        truth["direction"] = direction
        answer = f"The {name} moved {direction}." if en else f"{name}{DIRECTION_NAMES[direction][1][:2]}移动了。"
    elif change == "resized":
        bigger = rng.random() < 0.5
        small = (x, y, max(RADIUS_MIN, radius * 0.5))
        if small[2] > 0.65 * radius:
            return _make_changed(rng, language, size, turns)
        (before if bigger else after)[0][2] = small
        truth["to"] = "bigger" if bigger else "smaller"
        answer = f"The {name} got {truth['to']}." if en else f"{name}变{'大' if bigger else '小'}了。"
    else:
        truth = {"kind": "change", "change": "nothing"}
        answer = "Nothing changed." if en else "没有变化。"
    order = list(range(len(after)))
    rng.shuffle(order)
    asked = [Turn(_say(rng, language, _Q_CHANGED), answer, truth, "compare")]
    if turns > 1 and rng.random() < (0.5 if change == "nothing" else 0.1):
        same = change == "nothing"
        asked.append(Turn(_say(rng, language, _Q_SAME), _yes_no(language, same),
                          {"kind": "yes_no", "yes": same}, "compare"))
        rng.shuffle(asked)
    return Example("compare", language, [draw(before), draw(after)], None, 0.0, asked)


def _moved_spots(rng, width, height, others, radius, direction):
    """Two spots for a thing that moves clearly in `direction` and stays clear of `others`; None if none is found."""
    across = direction in ("left", "right")
    along, over = (width, height) if across else (height, width)
    for _ in range(40):
        step = along * rng.uniform(0.28, 0.6)
        low, high = radius + 3, along - radius - 3 - step
        if low > high:
            continue
        a = rng.uniform(low, high)
        b = rng.uniform(radius + 3, over - radius - 3)
        first, second = (a, b), (a + step, b)
        if not across:
            first, second = first[::-1], second[::-1]
        if direction in ("left", "up"):
            first, second = second, first
        if all(max(abs(p[0] - x), abs(p[1] - y)) > radius + r + 3 for p in (first, second) for x, y, r in others):
            return (*first, radius), (*second, radius)
    return None


# ------------------------------------------------------------------------------------------------ clips

_Q_DIRECTION = {
    "en": ("Which way does the {x} move?", "In which direction does the {x} move?", "Where does the {x} go?",
           "Which direction is the {x} moving?", "Does the {x} move left, right, up or down?",
           "Where is the {x} moving to?", "What is the direction of the {x}?", "Which way is the {x} going?",
           "To which side does the {x} move?", "How does the {x} move?", "What way does the {x} travel?"),
    "zh": ("{x}往哪个方向移动？", "{x}向哪边移动？", "{x}朝哪个方向运动？", "{x}往哪里移动？", "{x}是怎么移动的？", "{x}向哪个方向走？",
           "视频中{x}往哪边移动？", "{x}的运动方向是什么？", "{x}向左、向右、向上还是向下移动？", "{x}往哪儿走？"),
}
_Q_WHAT_MOVES = {
    "en": ("What moves?", "What is moving?", "Which shape moves?", "Which object is moving?",
           "What moves in the video?", "What is moving in this clip?", "Which thing moves?", "Name what moves.",
           "Which of the shapes is moving?", "What changes its place?"),
    "zh": ("什么在移动？", "哪个图形在移动？", "视频里什么在动？", "哪个物体在移动？", "什么在动？", "移动的是什么？", "哪个图形在动？", "请说出移动的图形。",
           "视频中移动的图形是什么？", "什么改变了位置？"),
}
_Q_CLIP_DESCRIBE = {
    "en": ("What happens in the video?", "What happens?", "Describe the clip.", "Describe the video.",
           "What happens in this clip?", "What do you see in the video?", "Tell me what happens.",
           "What is going on?", "Summarize the video.", "What does the clip show?"),
    "zh": ("视频里发生了什么？", "发生了什么？", "描述这个视频。", "请描述这段视频。", "视频中有什么动作？", "你在视频里看到了什么？", "说说发生了什么。",
           "这段视频显示了什么？", "描述一下视频内容。", "视频讲了什么？"),
}


def _make_clip(rng, language, size, turns):
    turns = rng.randint(1, 3) if turns is None else turns
    width, height = size or random_size(rng, 128, 224)
    frames = rng.randint(4, 8)
    while True:
        back = backdrop(rng, width, height)
        number = rng.choice((1, 1, 2, 2, 3))
        kinds = _distinct_kinds(rng, number, back.dark)
        base = min(_radius_base(width, height, number + 2) * 0.8, 0.17 * min(width, height))
        radii = [max(RADIUS_MIN, base * rng.uniform(0.65, 1.0)) for _ in range(number)]
        spots = scatter(rng, width, height, radii)
        direction = rng.choice(DIRECTIONS)
        moved = _moved_spots(rng, width, height, spots[1:], radii[0], direction)
        if moved is None:
            continue
        (x0, y0, r), (x1, y1, _) = moved
        lane = (min(x0, x1) - r, min(y0, y1) - r, max(x0, x1) + r, max(y0, y1) + r)
        if all(x + q < lane[0] - 2 or x - q > lane[2] + 2 or y + q < lane[1] - 2 or y - q > lane[3] + 2
               for x, y, q in spots[1:]):
            break
    sketch = pictures.random_sketch(rng, back)
    base_image = draw_scene(rng, back, kinds[1:], spots[1:], sketch).image
    shape, color = kinds[0]
    layers, _ = pictures.make_stamp(rng, shape, r, sketch, pictures.visible_color(rng, color, back), back)
    noise = rng.random() < 0.3
    quality = rng.randint(60, 95) if rng.random() < 0.2 else 0
    video = []
    drift = rng.uniform(-0.08, 0.08) * min(width, height)
    for k in range(frames):
        f = k / (frames - 1)
        x, y = x0 + (x1 - x0) * f, y0 + (y1 - y0) * f
        if direction in ("left", "right"):
            y = min(max(y + drift * (f - 0.5), r + 2), height - r - 2)
        else:
            x = min(max(x + drift * (f - 0.5), r + 2), width - r - 2)
        image = base_image.copy()
        pictures.put_stamp(image, layers, x, y)
        if noise:
            image = pictures.add_noise(rng, image, 0)
        video.append(pictures.jpeg(image, quality) if quality else image)
    thing = pictures.Thing(shape, color)
    scene = pictures.Scene(base_image, [thing] + [pictures.Thing(*k) for k in kinds[1:]], back.dark)
    asked = _ask(rng, language, (scene, direction), ((_ask_direction, 5), (_ask_what_moves, 3), (_ask_clip, 2)),
                 turns)
    return Example("clip", language, [], video, rng.choice((1.0, 2.0, 2.0, 4.0)), asked)


def _ask_direction(rng, language, clip):
    scene, direction = clip
    x = _refer(rng, language, scene, scene.things[0])
    if len(scene.things) == 1 and rng.random() < 0.3:
        x = rng.choice(("shape", "object", "thing")) if language == "en" else rng.choice(("图形", "物体"))
    return Turn(_say(rng, language, _Q_DIRECTION, x=x), DIRECTION_NAMES[direction][_en(language)],
                {"kind": "direction", "direction": direction}, "clip")


def _ask_what_moves(rng, language, clip):
    thing = clip[0].things[0]
    return Turn(_say(rng, language, _Q_WHAT_MOVES), _the(language, thing), _object_truth(thing), "clip")


def _ask_clip(rng, language, clip):
    thing, direction = clip[0].things[0], clip[1]
    name = thing_name(language, thing.shape, thing.color)
    if language == "en":
        answer = f"The {name} moves {direction}."
    else:
        answer = f"{name}{DIRECTION_NAMES[direction][1][:2]}移动。"
    truth = {"kind": "motion", "shape": thing.shape, "color": thing.color, "direction": direction}
    return Turn(_say(rng, language, _Q_CLIP_DESCRIBE), answer, truth, "clip")


# ---------------------------------------------------------------------------------- without a picture

_TALK = {
    "greeting": {
        "en": (("Hello", "Hi", "Hello!", "Hi there", "Hey", "Good morning", "Good evening", "Hi!", "Hello there!",
                "Hey there", "Good afternoon!", "Greetings", "How are you?", "Hello, how are you?"),
               "Hello! Send me a picture and ask me about it."),
        "zh": (("你好", "您好", "你好！", "嗨", "早上好", "晚上好", "下午好", "哈喽", "你好啊", "大家好", "你好吗？", "嗨！"),
               "你好！请发一张图片，然后问我。"),
    },
    "abilities": {
        "en": (("What can you do?", "What are you able to do?", "Help", "How can you help me?", "What do you know?",
                "What are your abilities?", "What can I ask you?", "What can you do for me?",
                "Tell me what you can do.", "How do you work?", "help me", "What questions can you answer?"),
               "I can name shapes and colours, count, find things, read short text and bar charts, and compare "
               "pictures."),
        "zh": (("你能做什么？", "你会什么？", "你可以做什么？", "帮助", "你有什么功能？", "我可以问你什么？", "你能帮我做什么？", "你会做什么？", "你能回答什么问题？",
                "介绍一下你的功能。", "怎么用？"),
               "我能说出形状和颜色，数数，找东西，读短文字和柱状图，还能比较图片。"),
    },
    "identity": {
        "en": (("Who are you?", "What are you?", "What is your name?", "Are you a model?", "Introduce yourself.",
                "Tell me about yourself.", "Which model are you?", "What's your name?", "Who made you?",
                "Are you human?", "Are you ChatGPT?"),
               "I am the small demo model of Prism. I know shapes, bar charts and short text."),
        "zh": (("你是谁？", "你是什么？", "你叫什么名字？", "你是什么模型？", "介绍一下你自己。", "请自我介绍。", "你的名字是什么？", "你是人吗？", "谁做了你？",
                "你是机器人吗？"),
               "我是Prism的小型演示模型。我认识形状、柱状图和短文字。"),
    },
    "thanks": {
        "en": (("Thanks", "Thank you", "Thank you!", "Thanks a lot", "Thanks!", "Thank you very much",
                "Great, thanks", "Many thanks", "Cheers", "Well done", "Good job"),
               "You are welcome!"),
        "zh": (("谢谢", "谢谢你", "多谢", "非常感谢", "谢谢！", "感谢", "谢了", "好的，谢谢", "太好了，谢谢", "辛苦了"), "不客气！"),
    },
    "goodbye": {
        "en": (("Bye", "Goodbye", "See you", "Good bye!", "Bye bye", "See you later", "Good night", "Farewell",
                "bye!", "See you soon"),
               "Goodbye!"),
        "zh": (("再见", "拜拜", "再见！", "回头见", "晚安", "下次见", "明天见", "我走了", "告辞", "拜"), "再见！"),
    },
}
_Q_SUM = {
    "en": ("What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b} = ?", "{a}+{b}", "{a}+{b}=", "How much is {a} + {b}?",
           "Add {a} and {b}.", "Compute {a} + {b}.", "What's {a} plus {b}?", "Can you add {a} and {b}?",
           "How much is {a} plus {b}?", "What do {a} and {b} make?", "{a} plus {b}", "What is the sum of {a} and {b}?"),
    "zh": ("{a}+{b}等于几？", "{a}加{b}等于多少？", "{a}+{b}=?", "{a}加{b}是多少？", "计算{a}+{b}。", "{a}加上{b}等于几？", "{a}+{b}是几？",
           "请算{a}+{b}。", "{a}和{b}的和是多少？", "{a}加{b}等于几？"),
}


def ask_talk(rng, language, _):
    if rng.random() < 0.4:
        total = rng.randint(0, 20)
        a = rng.randint(0, total)
        return Turn(_say(rng, language, _Q_SUM, a=a, b=total - a), str(total),
                    {"kind": "number", "number": total}, "talk")
    topic = rng.choice(("greeting", "greeting", "abilities", "abilities", "identity", "thanks", "goodbye"))
    questions, answer = _TALK[topic][language]
    question = rng.choice(questions)
    if rng.random() < 0.15:
        question = question.lower()
    elif rng.random() < 0.1 and question[-1] in "?.!？。！":
        question = question[:-1]
    return Turn(question, answer, {"kind": "talk", "topic": topic}, "talk")


def _make_talk(rng, language, size, turns):
    asked = _ask(rng, language, None, ((ask_talk, 1),), rng.choice((1, 1, 2)) if turns is None else turns)
    return Example("talk", language, [], None, 0.0, asked)


def _make_no_picture(rng, language, size, turns):
    """A question about a picture that was not sent: any of those above."""
    shape, color = rng.choice(SHAPES), rng.choice(COLORS)
    other_shape, other_color = rng.choice(SHAPES), rng.choice(COLORS)
    x = _asked(rng, language, shape, color)
    y = _asked(rng, language, other_shape, other_color)
    if rng.random() < 0.4:
        x, y = _shape_asked(rng, language, shape), _shape_asked(rng, language, other_shape)
    many = _shape_asked(rng, language, shape, plural=True)
    a = _article(x) if language == "en" else x
    e = _en(language)
    r = rng.choice(_RELATION_PHRASES[rng.choice(RELATIONS)][e])
    p = _PLACE_PHRASES[rng.choice(PLACES)][e]
    c = _color_asked(rng, language, color)
    label = rng.choice(rng.choice(_LABEL_SETS))
    templates, fill = rng.choice((
        (_Q_SHAPE_SINGLE, {}), (_Q_SHAPE_OF_COLOR, {"c": c}), (_Q_IS_THERE, {"a": a}), (_Q_COLOR_SINGLE, {}),
        (_Q_COLOR_OF, {"x": x}), (_Q_LARGEST, {}), (_Q_SMALLEST, {}), (_Q_WHICH_BIGGER, {"x": x, "y": y}),
        (_Q_SMALL_OR_BIG, {"x": x}), (_Q_COUNT, {"x": many}), (_Q_COUNT, {"x": many}), (_Q_TEXT, {}), (_Q_TEXT, {}),
        (_Q_WHERE, {"x": x}), (_Q_WHAT_AT, {"p": p}), (_Q_RELATION, {"x": x, "y": y}),
        (_Q_IS_RELATION, {"x": x, "y": y, "r": r}), (_Q_BOX, {"x": x}), (_Q_BOX, {"x": x}), (_Q_DESCRIBE, {}),
        (_Q_DESCRIBE, {}), (_Q_DESCRIBE_FULL, {}), (_Q_DESCRIBE_FULL, {}), (_Q_JSON_LIST, {}), (_Q_JSON_COUNTS, {}),
        (_Q_TALLEST, {}), (_Q_VALUE, {"x": label}), (_Q_TREND, {}), (_Q_MORE, {"x": many}), (_Q_CHANGED, {}),
        (_Q_DIRECTION, {"x": x}), (_Q_CLIP_DESCRIBE, {})))
    answer = NO_PICTURE[e]
    return Example("no_picture", language, [], None, 0.0,
                   [Turn(_say(rng, language, templates, **fill), answer, {"kind": "no_picture"}, "no_picture")])


# -------------------------------------------------------------------------------------------- examples

_SCENES = ((scene_single, 2), (scene_distinct, 4), (scene_many, 4), (scene_sized, 3), (scene_pair, 4),
           (scene_placed, 4), (scene_row, 4))

# task -> (the scenes it is asked of, how it is asked, with weights)
_SCENE_TASKS = {
    "shapes": ((scene_single, scene_distinct, scene_distinct, scene_pair), ((ask_shape, 3), (ask_is_there, 1))),
    "colours": ((scene_single, scene_distinct, scene_distinct, scene_pair), ((ask_color, 1),)),
    "sizes": ((scene_sized,), ((ask_size, 1),)),
    "count": ((scene_many,), ((ask_count, 1),)),
    "position": ((scene_pair, scene_pair, scene_placed), ((ask_place, 1), (ask_relation, 1.3))),
    "box": ((scene_single, scene_distinct, scene_distinct, scene_pair, scene_placed), ((ask_box, 1),)),
    "describe": ((scene_row, scene_row, scene_row, scene_single), ((ask_describe, 1),)),
    "json": ((scene_row, scene_row, scene_row, scene_many), ((ask_json, 1),)),
}

# What a sitting asks of its scene.
_SITTING_ASKERS = ((ask_shape, 2), (ask_is_there, 1.5), (ask_color, 2), (ask_size, 2), (ask_count, 3),
                   (ask_place, 2.5), (ask_relation, 3.5), (ask_box, 4), (ask_describe, 2), (ask_json, 1.5),
                   (ask_talk, 0.15))


def _pick(rng, weighted):
    return rng.choices([a for a, _ in weighted], [w for _, w in weighted])[0]


def _ask(rng, language, subject, askers, number, turns=None):
    """Up to `number` turns about the subject with different questions."""
    turns = [] if turns is None else turns
    for _ in range(number * 4):
        if len(turns) >= number:
            break
        turn = _pick(rng, askers)(rng, language, subject)
        # The same thing is not asked twice; equal numbers and yeses are mostly about different things.
        if turn is not None and all(turn.question != t.question and (
                turn.truth["kind"] in ("yes_no", "number") or (turn.task, turn.truth) != (t.task, t.truth))
                for t in turns):
            turns.append(turn)
    return turns


def _make_scene_example(rng, task, language, size, turns):
    scenes, askers = _SCENE_TASKS[task]
    chosen = size or random_size(rng)
    while True:
        scene = rng.choice(scenes)(rng, chosen)
        asked = _ask(rng, language, scene, askers, turns)
        if asked:
            return Example(task, language, [finish(rng, scene.image)], None, 0.0, asked)


def make_sitting(rng, language, size=None, turns=None):
    """One scene with turns (4 to 9 unless told) of several tasks; example.task is "sitting"."""
    turns = rng.randint(4, 9) if turns is None else turns
    chosen = size or random_size(rng)
    while True:
        scene = _pick(rng, _SCENES)(rng, chosen)
        asked = _ask(rng, language, scene, _SITTING_ASKERS, turns)
        if asked:
            return Example("sitting", language, [finish(rng, scene.image)], None, 0.0, asked)


_MAKERS = {"text": _make_text, "chart": _make_chart, "compare": _make_compare, "clip": _make_clip,
           "no_picture": _make_no_picture, "talk": _make_talk}

# (low, high) bounds of the pictures' sides that each task draws by itself; any task can be forced to others.
SIDES = {"chart": (192, 512), "compare": (128, 256), "clip": (128, 224)}


def make_example(rng, task, language, size=None, turns=None):
    """An example of one of TASKS. `size` (width, height) forces the pictures' size; `turns` how many turns
    there are at the most (a few by chance if None)."""
    if task in _SCENE_TASKS:
        return _make_scene_example(rng, task, language, size, rng.randint(1, 5) if turns is None else turns)
    return _MAKERS[task](rng, language, size, turns)


def training_mix():
    """Shares in which the trainer draws examples; "sitting" is make_sitting."""
    return {"sitting": 0.40, "shapes": 0.02, "colours": 0.02, "sizes": 0.03, "count": 0.06, "position": 0.04,
            "box": 0.04, "text": 0.15, "chart": 0.10, "compare": 0.07, "clip": 0.03, "describe": 0.01, "json": 0.01,
            "no_picture": 0.01, "talk": 0.01}


def sample(rng, size=None, mix=None):
    """An example by `mix` (training_mix() if None), English or Chinese."""
    mix = mix or training_mix()
    task = rng.choices(list(mix), list(mix.values()))[0]
    language = LANGUAGES[rng.random() < 0.4]
    if task == "sitting":
        return make_sitting(rng, language, size)
    return make_example(rng, task, language, size)
