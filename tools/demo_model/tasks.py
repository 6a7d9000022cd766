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
import wording
from pictures import RADIUS_MIN, backdrop, draw_scene, finish, palette, random_size, scatter, stream
from words import (COLORS, COLOR_NAMES, DIRECTIONS, DIRECTION_NAMES, LANGUAGES, NO, NO_PICTURE, PLACES,
                   PLACE_NAMES, RELATIONS, RELATION_NAMES, SHAPES, SHAPE_NAMES, TREND_NAMES, YES)

EVAL_SEED = 20261120

TASKS = ("shapes", "colours", "sizes", "count", "position", "box", "text", "chart", "compare", "clip",
         "describe", "json", "no_picture", "talk")


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
            text = ("Please tell me: ", "Look at the picture. ", "Tell me, ",
                    "Hey, ")[rng.randrange(4)] + text
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


def _shape_asked(rng, language, shape, plural=False):
    """A shape's name as a question says it."""
    if language == "en":
        return SHAPE_NAMES[shape][1 if plural else 0]
    return rng.choice(wording.ZH_SHAPE_ASKED[shape])


def _color_asked(rng, language, color):
    if language == "en":
        return "grey" if color == "gray" and rng.random() < 0.4 else color
    name = COLOR_NAMES[color][1]
    return "粉红色" if color == "pink" and rng.random() < 0.3 else name


def _asked(rng, language, shape, color, plural=False):
    """A kind of thing as a question says it: "red circle", "红色的圆形"."""
    s = _shape_asked(rng, language, shape, plural)
    c = _color_asked(rng, language, color)
    return f"{c} {s}" if language == "en" else rng.choice(wording.ZH_COLOR_SHAPE).format(c=c, s=s)


def _refer(rng, language, scene, thing, full=0.5):
    """Words that mean this thing and no other of the scene, without an article; None if there are none."""
    if sum(t.kind == thing.kind for t in scene.things) > 1:
        return None
    if rng.random() >= full:
        shapes = [t.shape for t in scene.things]
        if shapes.count(thing.shape) == 1 and not _doubtful(thing.shape, shapes) and rng.random() < 0.8:
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
    others = min(8 - target, rng.choice((0, 0, 1, 2, 3)))
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
        r = max(
            RADIUS_MIN,
            min(column * 0.46, height * 0.4, 0.5 * (width * height / number) ** 0.5) * rng.uniform(0.5, 1.0))
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


def ask_shape(rng, language, scene):
    if len(scene.things) == 1 and rng.random() < 0.75:
        thing = scene.things[0]
        question = _say(rng, language, wording.SHAPE_SINGLE)
    else:
        lone = _unique(scene.things, lambda t: t.color)
        if not lone:
            return None
        thing = rng.choice(lone)
        question = _say(rng, language, wording.SHAPE_OF_COLOR, c=_color_asked(rng, language, thing.color))
    name = SHAPE_NAMES[thing.shape]
    answer = _sentence(language, _article(name[0]) if language == "en" else name[2])
    return Turn(question, answer, {"kind": "shape", "shape": thing.shape}, "shapes")


def _doubtful(shape, shapes):
    """Whether some would call another of these shapes by this name, or this one by another name."""
    return ((shape == "circle" and "ring" in shapes) or (shape == "ring" and "circle" in shapes) or
            (shape == "rectangle" and "square" in shapes))


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
    question = _say(rng, language, wording.IS_THERE, a=a)
    answer = YES[0] if yes else NO[0]
    if language == "zh":
        answer = "有。" if yes else "没有。"
    return Turn(question, answer, {"kind": "yes_no", "yes": yes}, "shapes")


def ask_color(rng, language, scene):
    shapes = [t.shape for t in scene.things]
    lone = [t for t in scene.things if shapes.count(t.shape) == 1 and not _doubtful(t.shape, shapes)]
    if len(scene.things) == 1 and rng.random() < 0.5:
        thing = scene.things[0]
        question = _say(rng, language, wording.COLOR_SINGLE)
    elif lone:
        thing = rng.choice(lone)
        x = _shape_asked(rng, language, thing.shape)
        if rng.random() < 0.15:
            yes = rng.random() < 0.5
            color = thing.color if yes else rng.choice([c for c in COLORS if c != thing.color])
            question = _say(rng, language, wording.IS_COLOR, x=x, c=_color_asked(rng, language, color))
            return Turn(question, _yes_no(language, yes), {"kind": "yes_no", "yes": yes}, "colours")
        question = _say(rng, language, wording.COLOR_OF, x=x)
    else:
        return None
    return Turn(question, _sentence(language, COLOR_NAMES[thing.color][_en(language)]),
                {"kind": "color", "color": thing.color}, "colours")


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
        question = _say(rng, language, wording.SMALL_OR_BIG, x=x)
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
        return Turn(_say(rng, language, wording.LARGEST), _the(language, largest), _object_truth(largest),
                    "sizes")
    if kind < 0.6:
        if not all(t is smallest or _clearly_bigger(t, smallest) for t in things):
            return None
        return Turn(_say(rng, language, wording.SMALLEST), _the(language, smallest), _object_truth(smallest),
                    "sizes")
    a, b = rng.sample(things, 2)
    if not (_clearly_bigger(a, b) or _clearly_bigger(b, a)):
        return None
    x, y = _refer(rng, language, scene, a), _refer(rng, language, scene, b)
    if x is None or y is None:
        return None
    bigger = rng.random() < 0.5
    answer = a if _clearly_bigger(a, b) == bigger else b
    question = _say(rng, language, wording.WHICH_BIGGER if bigger else wording.WHICH_SMALLER, x=x, y=y)
    return Turn(question, _the(language, answer), _object_truth(answer), "sizes")


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
            x = (f"{c} {rng.choice(('shapes', 'shapes', 'objects', 'things'))}" if language == "en" else c +
                 rng.choice(("图形", "的图形", "的形状", "的物体")))
        else:
            number = sum(t.kind == pick.kind for t in things)
            x = _asked(rng, language, pick.shape, pick.color, plural=True)
    return Turn(_say(rng, language, wording.COUNT, x=x), str(number), {"kind": "number", "number": number},
                "count")


# ------------------------------------------------------------------------------------------------ text

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_DIGITS = "0123456789"
_SMALL_LETTERS = "abcdefghijkmnpqrstuvwxyz"


def random_text(rng, length_max=8):
    """1 to 8 characters to print. I and O are left out where they could be digits."""
    kind = rng.random()
    if kind < 0.32:
        words = [w for w in wording.WORDS if len(w) <= length_max]
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


def ask_text(rng, language, text):
    return Turn(_say(rng, language, wording.TEXT), text, {"kind": "text", "text": text}, "text")


def ask_text_length(rng, language, text):
    return Turn(_say(rng, language, wording.TEXT_LENGTH), str(len(text)),
                {"kind": "number", "number": len(text)}, "text")


def ask_text_json(rng, language, text):
    value = {"text": text}
    return Turn(_say(rng, language, wording.TEXT_JSON), _json(value), {"kind": "json", "value": value},
                "json")


def ask_text_describe(rng, language, text):
    answer = f'The text "{text}".' if language == "en" else f"文字“{text}”。"
    return Turn(_say(rng, language, wording.DESCRIBE if rng.random() < 0.5 else wording.DESCRIBE_FULL),
                answer, {"kind": "text", "text": text}, "describe")


_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def ask_text_part(rng, language, text):
    first = rng.random() < 0.5
    part = text[0 if first else -1]
    return Turn(_say(rng, language, {language: wording.TEXT_PART[language][first]}), part,
                {"kind": "text", "text": part}, "text")


def ask_line(rng, language, lines):
    i = rng.randrange(len(lines))
    kind = rng.random()
    if kind < 0.08:
        return Turn(_say(rng, language, wording.LINES), str(len(lines)),
                    {"kind": "number", "number": len(lines)}, "text")
    if kind < 0.3 and i in (0, len(lines) - 1):
        if language == "en":
            o = rng.choice(("top", "first") if i == 0 else ("bottom", "last"))
            question = _loosen(rng, language, rng.choice(wording.LINE["en"][4:]).format(o=o))
        else:
            o = rng.choice(("最上面一", "首") if i == 0 else ("最下面一", "最后一"))
            question = rng.choice((f"{o}行写了什么？", f"{o}行的文字是什么？", f"请读出{o}行。"))
    else:
        question = _say(rng, language, wording.LINE, k=i + 1, o=_ORDINALS[i], z="一二三四五"[i])
    return Turn(question, lines[i], {"kind": "text", "text": lines[i]}, "text")


_TEXT_EXTRAS = ((ask_text_part, 3), (ask_text_length, 2), (ask_text_json, 1.5), (ask_text_describe, 2))


def _make_text(rng, language, size, turns):
    width, height = size or random_size(rng)
    length_max = max(1, min(8, width // 24))
    if turns != 1 and height >= 160 and rng.random() < 0.35:
        lines = [random_text(rng, length_max) for _ in range(rng.randint(2, min(5, height // 56)))]
        image = finish(rng, pictures.draw_lines_picture(rng, width, height, lines))
        return Example("text", language, [image], None, 0.0,
                       _ask(rng, language, lines, ((ask_line, 1),), turns or len(lines)))
    text = random_text(rng, length_max)
    image = finish(rng, pictures.draw_text_picture(rng, width, height, text))
    asked = [ask_text(rng, language, text)]
    if turns != 1 and rng.random() < 0.35:
        asked = _ask(rng, language, text, _TEXT_EXTRAS, turns or rng.randint(2, 3), asked)
    return Example("text", language, [image], None, 0.0, asked)


# -------------------------------------------------------------------------------------------- position


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
    """Where a lies relative to b, one of RELATIONS; None unless one axis clearly wins and boxes are apart."""
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
        question = _say(rng, language, wording.WHAT_AT, p=wording.PLACE_PHRASES[place][_en(language)])
        return Turn(question, _the(language, thing), _object_truth(thing), "position")
    x = _refer(rng, language, scene, thing)
    if x is None:
        return None
    return Turn(_say(rng, language, wording.WHERE, x=x), PLACE_NAMES[place][_en(language)],
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
        phrase = rng.choice(wording.RELATION_PHRASES[r][e])
        question = _say(rng, language, wording.IS_RELATION, x=x, y=y, r=phrase)
        return Turn(question, _yes_no(language, yes), {"kind": "yes_no", "yes": yes}, "position")
    if kind < 0.35:
        if any(t is not a and t is not b and relation_of(t, b) in (None, relation) for t in scene.things):
            return None
        phrase = rng.choice(wording.RELATION_PHRASES[relation][e])
        question = _say(rng, language, wording.WHAT_RELATION, y=y, r=phrase)
        return Turn(question, _the(language, a), _object_truth(a), "position")
    if kind < 0.5:
        templates = {language: wording.EITHER[language][relation in ("left", "right")]}
    else:
        templates = wording.RELATION
    return Turn(_say(rng, language, templates, x=x, y=y), RELATION_NAMES[relation][e],
                {"kind": "relation", "relation": relation}, "position")


# ------------------------------------------------------------------------------------------------- box


def relative_box(scene, box):
    """A pixel box in thousandths of the picture's sides, as Qwen3-VL gives them."""
    return [
        round(box[0] * 1000 / scene.width),
        round(box[1] * 1000 / scene.height),
        round(box[2] * 1000 / scene.width),
        round(box[3] * 1000 / scene.height)
    ]


def ask_box(rng, language, scene):
    thing = rng.choice(scene.things)
    x = _refer(rng, language, scene, thing, full=0.65)
    if x is None:
        return None
    box = relative_box(scene, thing.box)
    label = thing_name(language, thing.shape, thing.color)
    return Turn(_say(rng, language, wording.BOX, x=x), _json({"bbox_2d": box, "label": label}),
                {"kind": "box", "box": box, "shape": thing.shape, "color": thing.color}, "box")


def _json(value):
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------ describing, JSON


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
    truth = {
        "kind": "scene", "things": [{"shape": s, "color": c, "number": n} for (s, c), n in groups.items()]
    }
    if rng.random() < 0.6:
        return Turn(_say(rng, language, wording.DESCRIBE), _sentence(language, listed), truth, "describe")
    truth["background"] = "dark" if scene.dark else "light"
    if language == "en":
        answer = f"The picture shows {listed}. The background is {truth['background']}."
    else:
        answer = f"图中有{listed}。背景是{'深色' if scene.dark else '浅色'}的。"
    return Turn(_say(rng, language, wording.DESCRIBE_FULL), answer, truth, "describe")


def ask_json(rng, language, scene):
    things = _left_to_right(scene)
    if things is None or len(things) > 6:
        return None
    if rng.random() < 0.65:
        value = {"shapes": [{"shape": t.shape, "color": t.color} for t in things]}
        question = _say(rng, language, wording.JSON_LIST)
    else:
        value = {}
        for t in things:
            value[t.shape] = value.get(t.shape, 0) + 1
        question = _say(rng, language, wording.JSON_COUNTS)
    return Turn(question, _json(value), {"kind": "json", "value": value}, "json")


# ---------------------------------------------------------------------------------------------- charts


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
        labels = rng.choice(wording.LABEL_SETS)
        if len(labels) >= number and max(pictures.label_width(x, size) for x in labels) <= column - 3:
            break
    else:
        labels = wording.LABEL_SETS[0]
    if rng.random() < 0.6:
        start = rng.randint(0, len(labels) - number)
        labels = list(labels[start:start + number])
    else:
        labels = rng.sample(labels, number)
    step = rng.choice((1, 2, 5, 10, 10, 20, 50, 100) if width >= 256 else (1, 2, 5, 10, 20))
    unit = 1 if printed else step
    kind = rng.random()
    while True:
        ticks = rng.randint(max(4, number), max(6, number + 2))
        top = step * ticks
        # Least difference of the values that are told apart by their height alone.
        apart = max(unit, -(-top // 12)) if printed else unit
        values = [rng.randint(1, top // unit) * unit for _ in range(number)]
        if kind < 0.34:
            values.sort()
        elif kind < 0.62:
            values.sort(reverse=True)
        elif _trend_of(values) is None:
            continue
        ranked = sorted(values)
        gaps = [b - a for a, b in zip(ranked, ranked[1:])]
        if ranked[0] * 14 < top or gaps[0] < apart or gaps[-1] < apart:
            continue
        if any(0 < gap < apart for gap in gaps) or (kind < 0.62 and 0 in gaps):
            continue
        break
    title = rng.choice(wording.TITLES) if height >= 224 and rng.random() < 0.25 else ""
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
        if ranked[-1] == ranked[-2]:
            return None
        return labelled(_say(rng, language, wording.TALLEST), labels[values.index(ranked[-1])])
    if kind < 0.36:
        if ranked[0] == ranked[1]:
            return None
        return labelled(_say(rng, language, wording.SHORTEST), labels[values.index(ranked[0])])
    if kind < 0.64:
        i = rng.randrange(len(labels))
        return numbered(_say(rng, language, wording.VALUE, x=labels[i]), values[i])
    if kind < 0.70:
        return numbered(_say(rng, language, wording.HIGHEST_VALUE), ranked[-1])
    if kind < 0.88:
        trend = _trend_of(values)
        if len(values) < 3 or trend is None:
            return None
        return Turn(_say(rng, language, wording.TREND), TREND_NAMES[trend][e],
                    {"kind": "trend", "trend": trend}, "chart")
    if kind < 0.93:
        i, j = rng.sample(range(len(labels)), 2)
        if values[i] == values[j]:
            return None
        return labelled(_say(rng, language, wording.HIGHER_OF, x=labels[i], y=labels[j]),
                        labels[i if values[i] > values[j] else j])
    return numbered(_say(rng, language, wording.BARS), len(labels))


def ask_chart_json(rng, language, chart):
    value = dict(zip(chart.labels, chart.values))
    return Turn(_say(rng, language, wording.CHART_JSON), _json(value), {"kind": "json", "value": value},
                "json")


def ask_chart_describe(rng, language, chart):
    n = len(chart.labels)
    question = _say(rng, language, wording.DESCRIBE if rng.random() < 0.5 else wording.DESCRIBE_FULL)
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
        templates = wording.MORE if more else wording.FEWER
    else:
        templates = wording.MOST if more else wording.FEWEST
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
    return Turn(_say(rng, language, wording.WHICH_SHOWS, **fill), _picture_answer(language, index + 1),
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
    return Turn(_say(rng, language, wording.COUNT_IN, x=x, k=index + 1), str(count),
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
    asked = [Turn(_say(rng, language, wording.CHANGED), answer, truth, "compare")]
    if turns > 1 and rng.random() < (0.5 if change == "nothing" else 0.1):
        same = change == "nothing"
        asked.append(
            Turn(_say(rng, language, wording.SAME), _yes_no(language, same), {"kind": "yes_no", "yes": same},
                 "compare"))
        rng.shuffle(asked)
    return Example("compare", language, [draw(before), draw(after)], None, 0.0, asked)


def _moved_spots(rng, width, height, others, radius, direction):
    """Two spots for a thing that moves clearly in `direction` clear of `others`; None if not found."""
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
        if all(
                max(abs(p[0] - x), abs(p[1] - y)) > radius + r + 3
                for p in (first, second)
                for x, y, r in others):
            return (*first, radius), (*second, radius)
    return None


# ------------------------------------------------------------------------------------------------ clips


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
    asked = _ask(rng, language, (scene, direction),
                 ((_ask_direction, 5), (_ask_what_moves, 3), (_ask_clip, 2)), turns)
    return Example("clip", language, [], video, rng.choice((1.0, 2.0, 2.0, 4.0)), asked)


def _ask_direction(rng, language, clip):
    scene, direction = clip
    x = _refer(rng, language, scene, scene.things[0])
    if len(scene.things) == 1 and rng.random() < 0.3:
        x = rng.choice(("shape", "object", "thing")) if language == "en" else rng.choice(("图形", "物体"))
    return Turn(_say(rng, language, wording.DIRECTION, x=x), DIRECTION_NAMES[direction][_en(language)],
                {"kind": "direction", "direction": direction}, "clip")


def _ask_what_moves(rng, language, clip):
    thing = clip[0].things[0]
    return Turn(_say(rng, language, wording.WHAT_MOVES), _the(language, thing), _object_truth(thing), "clip")


def _ask_clip(rng, language, clip):
    thing, direction = clip[0].things[0], clip[1]
    name = thing_name(language, thing.shape, thing.color)
    if language == "en":
        answer = f"The {name} moves {direction}."
    else:
        answer = f"{name}{DIRECTION_NAMES[direction][1][:2]}移动。"
    truth = {"kind": "motion", "shape": thing.shape, "color": thing.color, "direction": direction}
    return Turn(_say(rng, language, wording.CLIP_DESCRIBE), answer, truth, "clip")


# ---------------------------------------------------------------------------------- without a picture


def ask_talk(rng, language, _):
    if rng.random() < 0.4:
        total = rng.randint(0, 20)
        a = rng.randint(0, total)
        return Turn(_say(rng, language, wording.SUM, a=a, b=total - a), str(total),
                    {"kind": "number", "number": total}, "talk")
    topic = rng.choice(("greeting", "greeting", "abilities", "abilities", "identity", "thanks", "goodbye"))
    questions, answer = wording.TALK[topic][language]
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
    r = rng.choice(wording.RELATION_PHRASES[rng.choice(RELATIONS)][e])
    p = wording.PLACE_PHRASES[rng.choice(PLACES)][e]
    c = _color_asked(rng, language, color)
    label = rng.choice(rng.choice(wording.LABEL_SETS))
    templates, fill = rng.choice((
        (wording.SHAPE_SINGLE, {}),
        (wording.SHAPE_OF_COLOR, {"c": c}),
        (wording.IS_THERE, {"a": a}),
        (wording.COLOR_SINGLE, {}),
        (wording.COLOR_OF, {"x": x}),
        (wording.LARGEST, {}),
        (wording.SMALLEST, {}),
        (wording.WHICH_BIGGER, {"x": x, "y": y}),
        (wording.SMALL_OR_BIG, {"x": x}),
        (wording.COUNT, {"x": many}),
        (wording.COUNT, {"x": many}),
        (wording.TEXT, {}),
        (wording.TEXT, {}),
        (wording.WHERE, {"x": x}),
        (wording.WHAT_AT, {"p": p}),
        (wording.RELATION, {"x": x, "y": y}),
        (wording.IS_RELATION, {"x": x, "y": y, "r": r}),
        (wording.BOX, {"x": x}),
        (wording.BOX, {"x": x}),
        (wording.DESCRIBE, {}),
        (wording.DESCRIBE, {}),
        (wording.DESCRIBE_FULL, {}),
        (wording.DESCRIBE_FULL, {}),
        (wording.JSON_LIST, {}),
        (wording.JSON_COUNTS, {}),
        (wording.TALLEST, {}),
        (wording.VALUE, {"x": label}),
        (wording.TREND, {}),
        (wording.MORE, {"x": many}),
        (wording.CHANGED, {}),
        (wording.DIRECTION, {"x": x}),
        (wording.CLIP_DESCRIBE, {}),
    ))
    answer = NO_PICTURE[e]
    return Example(
        "no_picture", language, [], None, 0.0,
        [Turn(_say(rng, language, templates, **fill), answer, {"kind": "no_picture"}, "no_picture")])


# -------------------------------------------------------------------------------------------- examples

_SCENES = ((scene_single, 2), (scene_distinct, 4), (scene_many, 4), (scene_sized, 3), (scene_pair, 4),
           (scene_placed, 4), (scene_row, 4))

# task -> (the scenes it is asked of, how it is asked, with weights)
_SCENE_TASKS = {
    "shapes": (
        (scene_single, scene_distinct, scene_distinct, scene_pair), ((ask_shape, 3), (ask_is_there, 1))),
    "colours": ((scene_single, scene_distinct, scene_distinct, scene_pair), ((ask_color, 1),)),
    "sizes": ((scene_sized,), ((ask_size, 1),)),
    "count": ((scene_many,), ((ask_count, 1),)),
    "position": ((scene_pair, scene_pair, scene_placed), ((ask_place, 1), (ask_relation, 1.3))),
    "box": ((scene_single, scene_distinct, scene_distinct, scene_pair, scene_placed), ((ask_box, 1),)),
    "describe": ((scene_row, scene_row, scene_row, scene_single), ((ask_describe, 1),)),
    "json": ((scene_row, scene_row, scene_row, scene_many), ((ask_json, 1),)),
}

# What a sitting asks of its scene.
_SITTING_ASKERS = (
    (ask_shape, 2),
    (ask_is_there, 1.5),
    (ask_color, 2),
    (ask_size, 2),
    (ask_count, 3),
    (ask_place, 2.5),
    (ask_relation, 3.5),
    (ask_box, 4),
    (ask_describe, 2),
    (ask_json, 1.5),
    (ask_talk, 0.15),
)


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
        if turn is not None and all(
                turn.question != t.question and
            (turn.truth["kind"] in ("yes_no", "number") or (turn.task, turn.truth) != (t.task, t.truth))
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


_MAKERS = {
    "text": _make_text, "chart": _make_chart, "compare": _make_compare, "clip": _make_clip,
    "no_picture": _make_no_picture, "talk": _make_talk
}

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
    return {
        "sitting": 0.40, "shapes": 0.02, "colours": 0.02, "sizes": 0.03, "count": 0.06, "position": 0.04,
        "box": 0.04, "text": 0.15, "chart": 0.10, "compare": 0.07, "clip": 0.03, "describe": 0.01,
        "json": 0.01, "no_picture": 0.01, "talk": 0.01
    }


def sample(rng, size=None, mix=None):
    """An example by `mix` (training_mix() if None), English or Chinese."""
    mix = mix or training_mix()
    task = rng.choices(list(mix), list(mix.values()))[0]
    language = LANGUAGES[rng.random() < 0.4]
    if task == "sitting":
        return make_sitting(rng, language, size)
    return make_example(rng, task, language, size)
