"""Draws the demo model's pictures: scenes of coloured shapes, printed text and bar charts.

Every function takes its own random.Random, so a picture is a function of the stream alone (for one version
of Pillow and one set of fonts). Shapes are drawn as supersampled masks no larger than the shape, which keeps
a scene at a millisecond or two; their boxes are read off the finished masks and so are exact.

Needs Pillow and numpy. Fonts: the .ttf files below $PRISM_DEMO_FONTS, else below /usr/share/fonts.
"""

import dataclasses
import functools
import hashlib
import io
import math
import os
import pathlib
import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from words import COLORS, SHAPES

SIDE_MIN = 128
SIDE_MAX = 512

# The smallest half extent in pixels at which every shape can still be told from the others.
RADIUS_MIN = 10.5


def stream(name, index):
    """The random stream `index` of the family `name` ("train", "fresh", "eval", ...)."""
    digest = hashlib.sha256(f"{name}/{index}".encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "little"))


# ---------------------------------------------------------------------------------------------- colours

# name -> list of (hue degrees low, high, saturation low, high, value low, high). The regions are far apart.
_COLOR_REGIONS = {
    "red": [(-8, 5, 0.82, 1.0, 0.80, 1.0), (-5, 3, 0.85, 1.0, 0.62, 0.80)],
    "orange": [(24, 34, 0.85, 1.0, 0.93, 1.0)],
    "yellow": [(50, 59, 0.75, 1.0, 0.94, 1.0)],
    "green": [(100, 148, 0.60, 1.0, 0.48, 0.85), (112, 128, 0.85, 1.0, 0.85, 1.0)],
    "blue": [(206, 240, 0.70, 1.0, 0.62, 1.0), (228, 240, 0.75, 1.0, 0.50, 0.65)],
    "purple": [(268, 292, 0.55, 0.95, 0.50, 0.82)],
    "pink": [(322, 346, 0.28, 0.58, 0.95, 1.0)],
    "black": [(0, 360, 0.0, 0.3, 0.0, 0.11)],
    "white": [(0, 360, 0.0, 0.02, 0.96, 1.0)],
    "gray": [(0, 360, 0.0, 0.04, 0.44, 0.62)],
}


def _hsv(h, s, v):
    h = (h % 360.0) / 60.0
    i = int(h)
    f = h - i
    p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
    r, g, b = ((v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q))[i % 6]
    return int(r * 255 + 0.5), int(g * 255 + 0.5), int(b * 255 + 0.5)


def pick_color(rng, name):
    """An RGB triple that a person would call `name`."""
    regions = _COLOR_REGIONS[name]
    h0, h1, s0, s1, v0, v1 = regions[0] if len(regions) == 1 or rng.random() < 0.7 else regions[1]
    return _hsv(rng.uniform(h0, h1), rng.uniform(s0, s1), rng.uniform(v0, v1))


def distance(a, b):
    """How far two RGB colours lie apart, 0..765, green weighing most as in the eye."""
    return 0.9 * abs(a[0] - b[0]) + 1.3 * abs(a[1] - b[1]) + 0.8 * abs(a[2] - b[2])


# ------------------------------------------------------------------------------------------ backgrounds

DARK_BACKGROUND_SHARE = 0.22

# Colours that show clearly on each kind of background.
LIGHT_BACKGROUND_COLORS = tuple(c for c in COLORS if c != "white")
DARK_BACKGROUND_COLORS = tuple(c for c in COLORS if c != "black")


@dataclasses.dataclass
class Backdrop:
    image: Image.Image
    dark: bool
    color: tuple  # its mean RGB
    paint: bool  # plain white, as in a new file of a paint program


def _tint(rng, dark):
    kind = rng.random()
    if dark:
        if kind < 0.3:
            v = rng.randint(0, 25)
            return (v, v, v)
        return _hsv(rng.uniform(0, 360), rng.uniform(0, 0.6), rng.uniform(0.08, 0.2))
    if kind < 0.35:
        v = rng.randint(225, 255)
        return (v, v, v)
    return _hsv(rng.uniform(0, 360), rng.uniform(0, 0.13), rng.uniform(0.9, 1.0))


def backdrop(rng, width, height, dark=None, paint=None):
    """A background: plain white, plain tinted, a gradient or a soft mottle; light or dark, never between."""
    if dark is None:
        dark = rng.random() < DARK_BACKGROUND_SHARE
    if paint is None:
        paint = not dark and rng.random() < 0.35
    if paint:
        return Backdrop(Image.new("RGB", (width, height), (255, 255, 255)), False, (255, 255, 255), True)
    color = _tint(rng, dark)
    kind = rng.random()
    if kind < 0.45:
        return Backdrop(Image.new("RGB", (width, height), color), dark, color, False)
    side = 2 if kind < 0.75 else rng.randint(4, 9)
    spread = 14 if side == 2 else 7
    small = Image.new("RGB", (side, side))
    small.putdata([
        tuple(max(0, min(255, c + rng.randint(-spread, spread))) for c in color) for _ in range(side * side)
    ])
    return Backdrop(small.resize((width, height), Image.Resampling.BILINEAR), dark, color, False)


@functools.lru_cache(maxsize=None)
def _noise_pool(level):
    generator = np.random.default_rng(7 + level)
    side = SIDE_MAX + 256
    sigma = (3.0, 6.0, 10.0)[level]
    pixels = generator.normal(0.0, sigma, (side, side, 3)) + 128.0
    if level == 1:
        pixels[:] = pixels[:, :, :1]  # gray noise as of a scanner
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def add_noise(rng, image, level=None):
    """The image plus a random window of a pool of Gaussian noise."""
    pool = _noise_pool(rng.randrange(3) if level is None else level)
    x = rng.randrange(pool.width - image.width + 1)
    y = rng.randrange(pool.height - image.height + 1)
    return ImageChops.add(image, pool.crop((x, y, x + image.width, y + image.height)), 1, -128)


def jpeg(image, quality):
    """The image after a round through JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    decoded = Image.open(buffer)
    decoded.load()
    return decoded


def finish(rng, image, blur=True):
    """What happens to a picture on its way to us: sometimes blur, noise, and JPEG artefacts."""
    if blur and rng.random() < 0.08:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9)))
    if rng.random() < 0.3:
        image = add_noise(rng, image)
    if rng.random() < 0.25:
        image = jpeg(image, rng.randint(55, 95))
    return image


# ---------------------------------------------------------------------------------------------- shapes


def _regular(n, phase=-math.pi / 2):
    return [(math.cos(phase + 2 * math.pi * i / n), math.sin(phase + 2 * math.pi * i / n)) for i in range(n)]


def _star_points(inner):
    points = []
    for i in range(10):
        angle = -math.pi / 2 + math.pi * i / 5
        r = 1.0 if i % 2 == 0 else inner
        points.append((r * math.cos(angle), r * math.sin(angle)))
    return points


def _heart_points():
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        x = 16 * math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        points.append((x / 16, y / 16))
    return points


_CIRCLE = _regular(56)
_HEART = _heart_points()


def _outline(rng, shape):
    """The shape's corners around the origin, turned and proportioned at random, of no particular size."""
    turn = 0.0
    if shape in ("circle", "ring"):
        squeeze = rng.uniform(0.92, 1.0)
        points = [(x * squeeze, y) for x, y in _CIRCLE
                 ] if rng.random() < 0.5 else [(x, y * squeeze) for x, y in _CIRCLE]
    elif shape == "square":
        a = rng.uniform(0.95, 1.0)
        points = [(-a, -1), (a, -1), (a, 1), (-a, 1)]
        turn = rng.gauss(0, 3.5) if rng.random() < 0.5 else 0.0
        turn = max(-9.0, min(9.0, turn))
    elif shape == "rectangle":
        a = rng.uniform(0.36, 0.62)
        points = [(-1, -a), (1, -a), (1, a), (-1, a)]
        turn = 90.0 if rng.random() < 0.45 else 0.0
        if rng.random() < 0.4:
            turn += rng.uniform(-14, 14)
    elif shape == "triangle":
        kind = rng.random()
        if kind < 0.7:
            a = rng.uniform(0.75, 1.1)
            points = [(0, -1), (a, 0.8), (-a, 0.8)]
        elif kind < 0.85:
            points = [(-1, -1), (1, 1), (-1, 1)]
        else:
            points = [(rng.uniform(-0.8, 0.8), -0.9), (1, 0.8), (-1, 0.8)]
        turn = rng.uniform(-15, 15) if rng.random() < 0.6 else rng.uniform(0, 360)
    elif shape == "star":
        points = _star_points(rng.uniform(0.36, 0.46))
        turn = rng.uniform(-12, 12) if rng.random() < 0.7 else rng.uniform(0, 72)
    elif shape == "diamond":
        a = rng.uniform(0.58, 0.85)
        points = [(0, -1), (a, 0), (0, 1), (-a, 0)]
        turn = 90.0 if rng.random() < 0.25 else 0.0
        if rng.random() < 0.4:
            turn += rng.uniform(-5, 5)
    elif shape == "cross":
        a = rng.uniform(0.24, 0.38)
        points = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a),
                  (-1, -a), (-a, -a)]
        turn = rng.uniform(-12, 12) if rng.random() < 0.5 else 0.0
    else:
        squeeze = rng.uniform(0.88, 1.12)
        points = [(x * squeeze, y) for x, y in _HEART]
        turn = rng.uniform(-15, 15) if rng.random() < 0.5 else 0.0
    if turn:
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        points = [(x * c - y * s, x * s + y * c) for x, y in points]
    return points


def _fit(points):
    """The points moved and scaled so that the longer side of their box runs from -1 to 1."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    cx, cy, scale = (x0 + x1) / 2, (y0 + y1) / 2, 2.0 / max(x1 - x0, y1 - y0)
    return [((x - cx) * scale, (y - cy) * scale) for x, y in points]


def _wobble(rng, points, amount):
    """The outline as an unsteady hand draws it: points along the edges, pushed in and out by slow waves."""
    dense = []
    n = len(points)
    per_edge = max(1, 44 // n)
    for i in range(n):
        x0, y0 = points[i]
        x1, y1 = points[(i + 1) % n]
        for k in range(per_edge):
            f = k / per_edge
            dense.append((x0 + (x1 - x0) * f, y0 + (y1 - y0) * f))
    waves = [(rng.randint(2, 4), rng.uniform(0, 6.283), amount * rng.uniform(0.3, 1.0)),
             (rng.randint(5, 8), rng.uniform(0, 6.283), amount * rng.uniform(0.2, 0.6)),
             (rng.randint(9, 14), rng.uniform(0, 6.283), amount * rng.uniform(0.0, 0.2))]
    out = []
    step = 2 * math.pi / len(dense)
    for i, (x, y) in enumerate(dense):
        push = 1.0
        side = 0.0
        for k, phase, a in waves:
            push += a * math.sin(k * step * i + phase)
            side += a * 0.4 * math.cos(k * step * i + 2 * phase)
        out.append((x * push + side, y * push - side))
    return out


def _area(points):
    total = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
        total += x0 * y1 - x1 * y0
    return abs(total) / 2


_THRESHOLD = [0] * 96 + [255] * 160


@dataclasses.dataclass
class Thing:
    """One drawn shape. `box` is its tight box in pixels, right and bottom exclusive; `area` in pixels."""
    shape: str
    color: str
    box: tuple = (0, 0, 0, 0)
    area: float = 0.0

    @property
    def center(self):
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def extent(self):
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def kind(self):
        return self.shape, self.color


@dataclasses.dataclass
class Sketch:
    """How a scene's shapes are drawn."""
    fill: str  # "flat", "edged" (filled with an outline of another colour) or "hollow" (an outline alone)
    hand: float  # wobble of the outline; 0 is none
    hard: bool  # no antialiasing, as a paint program's pencil


def random_sketch(rng, back):
    kind = rng.random()
    if back.paint:
        hand = rng.uniform(0.008, 0.032) if rng.random() < 0.5 else 0.0
        fill = "flat" if kind < 0.6 else "hollow" if kind < 0.82 else "edged"
        return Sketch(fill, hand, rng.random() < 0.35)
    hand = rng.uniform(0.006, 0.025) if rng.random() < 0.12 else 0.0
    fill = "flat" if kind < 0.78 else "hollow" if kind < 0.88 else "edged"
    return Sketch(fill, hand, rng.random() < 0.08)


def make_stamp(rng, shape, radius, sketch, color_rgb, back):
    """The shape as [(mask, rgb)], each mask a square around the shape's centre, and its area in pixels.

    The longer side of the shape, stroke included, is 2 * radius give or take a pixel.
    """
    points = _outline(rng, shape)
    if sketch.hand:
        points = _wobble(rng, points, sketch.hand)
    points = _fit(points)
    stroke = 0.0
    if sketch.fill == "hollow" and shape != "ring":
        stroke = max(2.0, radius * rng.uniform(0.09, 0.16))
    elif sketch.fill == "edged":
        stroke = max(1.5, radius * rng.uniform(0.06, 0.11))
    inner_radius = radius - stroke / 2
    ss = 1 if sketch.hard else 4 if radius < 24 else 3 if radius < 60 else 2
    half = int(math.ceil(radius + 2))
    side = 2 * half * ss
    center = side / 2
    scale = inner_radius * ss
    drawn = [(center + x * scale, center + y * scale) for x, y in points]
    fill = None
    if sketch.fill != "hollow" or shape == "ring":
        fill = Image.new("L", (side, side))
        draw = ImageDraw.Draw(fill)
        draw.polygon(drawn, fill=255)
        if shape == "ring":
            hole = rng.uniform(0.46, 0.64)
            inside = points if not sketch.hand else _fit(_wobble(rng, _CIRCLE, sketch.hand))
            inside = [(center + x * scale * hole, center + y * scale * hole) for x, y in inside]
            draw.polygon(inside, fill=0)
        if ss > 1:
            fill = fill.reduce(ss)
    layers = [(fill, color_rgb)] if fill is not None else []
    if stroke:
        line = Image.new("L", (side, side))
        draw = ImageDraw.Draw(line)
        width = stroke * ss
        rings = [drawn] if shape != "ring" else [drawn, inside]
        for loop in rings:
            draw.line(loop + [loop[0]], fill=255, width=max(1, round(width)))
            if len(loop) < 20 or sketch.hand:
                r = width / 2 - 0.5
                for x, y in loop if len(loop) < 20 else loop[::2]:
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if ss > 1:
            line = line.reduce(ss)
        if sketch.fill == "hollow":
            edge = color_rgb
        elif sum(color_rgb) < 150:
            edge = (150, 150, 150)
        elif not back.dark and rng.random() < 0.6:
            v = rng.randint(0, 40)
            edge = (v, v, v)
        else:
            edge = tuple(c * 55 // 100 for c in color_rgb)
        layers.append((line, edge))
    area = _area(points) * radius * radius
    return layers, area


def put_stamp(image, layers, cx, cy):
    """Draws a stamp centred at (cx, cy), whole pixels. Returns the tight box of what it covers."""
    box = None
    for mask, rgb in layers:
        x, y = int(cx) - mask.width // 2, int(cy) - mask.height // 2
        image.paste(rgb, (x, y), mask)
        inside = mask.point(_THRESHOLD).getbbox()
        if inside is None:
            continue
        b = (max(0, x + inside[0]), max(0,
                                        y + inside[1]), min(image.width,
                                                            x + inside[2]), min(image.height, y + inside[3]))
        box = b if box is None else (min(box[0], b[0]), min(box[1], b[1]), max(box[2], b[2]),
                                     max(box[3], b[3]))
    return box


@dataclasses.dataclass
class Scene:
    image: Image.Image
    things: list  # of Thing
    dark: bool

    @property
    def width(self):
        return self.image.width

    @property
    def height(self):
        return self.image.height


def scatter(rng, width, height, radii, gap=None, tries=60):
    """Centres for discs of these radii that keep clear of one another and of the edges.

    Radii that find no room are shrunk, all of them alike, until they do. Returns [(x, y, radius)].
    """
    gap = max(3.0, min(width, height) * 0.015) if gap is None else gap
    radii = list(radii)
    order = sorted(range(len(radii)), key=lambda i: -radii[i])
    for _ in range(40):
        placed = {}
        for i in order:
            r = radii[i]
            margin = r + 3
            for _ in range(tries):
                x = rng.uniform(margin, width - margin) if width > 2 * margin else width / 2
                y = rng.uniform(margin, height - margin) if height > 2 * margin else height / 2
                if all(
                        max(abs(x - px), abs(y - py)) > r + pr + gap or (x - px) ** 2 +
                    (y - py) ** 2 > (1.12 * (r + pr) + gap) ** 2 for px, py, pr in placed.values()):
                    placed[i] = (x, y, r)
                    break
            else:
                break
        if len(placed) == len(radii):
            return [placed[i] for i in range(len(radii))]
        radii = [max(RADIUS_MIN, r * 0.9) for r in radii]
    raise ValueError(f"scatter: no room for {len(radii)} shapes in {width} x {height}")


def draw_scene(rng, back, kinds, spots, sketch=None):
    """Draws things of `kinds` [(shape, color)] at `spots` [(x, y, radius)] on a backdrop, used up by it."""
    sketch = sketch or random_sketch(rng, back)
    image = back.image
    things = []
    shades = {}
    for (shape, color), (x, y, radius) in zip(kinds, spots):
        if color not in shades or rng.random() < 0.3:
            shades[color] = visible_color(rng, color, back)
        layers, area = make_stamp(rng, shape, radius, sketch, shades[color], back)
        box = put_stamp(image, layers, x, y)
        things.append(Thing(shape, color, box, area))
    return Scene(image, things, back.dark)


def visible_color(rng, name, back):
    """A shade of `name` that stands out from the backdrop."""
    best, best_distance = None, -1.0
    for _ in range(6):
        rgb = pick_color(rng, name)
        d = distance(rgb, back.color)
        if d > 150:
            return rgb
        if d > best_distance:
            best, best_distance = rgb, d
    return best


def palette(dark):
    """The colours that show on a light or dark background."""
    return DARK_BACKGROUND_COLORS if dark else LIGHT_BACKGROUND_COLORS


# ------------------------------------------------------------------------------------------------ text

_FONT_FAMILIES = ("DejaVu", "Liberation", "Free", "Lato-", "OpenSans", "Hack-", "ComicNeue", "Roboto",
                  "Carlito", "Caladea")
_FONT_UNWANTED = ("MathTeX", "ExtraLight", "Thin", "Hairline", "Light", "Medium", "Semi", "Heavy", "Black")


def font_folder():
    return os.environ.get("PRISM_DEMO_FONTS", "/usr/share/fonts")


@functools.lru_cache(maxsize=None)
def font_files():
    """The .ttf files to print with, by name; one file of a name. RuntimeError if there is none."""
    found = {}
    for path in sorted(pathlib.Path(font_folder()).rglob("*.ttf")):
        name = path.name
        if name.startswith(_FONT_FAMILIES) and not any(word in name for word in _FONT_UNWANTED):
            found.setdefault(name, str(path))
    if not found:
        raise RuntimeError(
            f"no fonts below {font_folder()}: install fonts-dejavu-core or set PRISM_DEMO_FONTS")
    return tuple(found[name] for name in sorted(found))


@functools.lru_cache(maxsize=4096)
def _font(path, size):
    return ImageFont.truetype(path, size)


def random_font(rng, size):
    return _font(rng.choice(font_files()), size)


def text_mask(rng, text, font, turn=0.0, spacing=0):
    """An L mask, trimmed to the ink, of one line of text turned by `turn` degrees."""
    left, top, right, bottom = font.getbbox(text)
    width = right - left + 8 + spacing * len(text)
    mask = Image.new("L", (width, bottom - top + 8))
    draw = ImageDraw.Draw(mask)
    if spacing:
        x = 4.0 - left
        for letter in text:
            draw.text((x, 4 - top), letter, font=font, fill=255)
            x += font.getlength(letter) + spacing
    else:
        draw.text((4 - left, 4 - top), text, font=font, fill=255)
    if turn:
        mask = mask.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    box = mask.getbbox()
    return mask.crop(box) if box else mask


_TEXT_MARGIN = 5  # pixels between the ink and the picture's edge


@dataclasses.dataclass
class Print:
    """A way of printing a line: its font file, its turn in degrees and its letter spacing in font sizes."""
    path: str
    turn: float
    spacing: float


def random_print(rng):
    return Print(rng.choice(font_files()),
                 rng.uniform(-9, 9) if rng.random() < 0.4 else 0.0,
                 rng.uniform(0.02, 0.15) if rng.random() < 0.25 else 0.0)


def _largest_size(text, way, width, height):
    """The largest font size at which the text fits width x height, or a little less."""
    # Measured at one size and scaled: glyphs grow in proportion.
    left, top, right, bottom = _font(way.path, 40).getbbox(text)
    w1, h1 = (right - left) / 40 + way.spacing * (len(text) - 1), (bottom - top) / 40
    c, s = math.cos(math.radians(way.turn)), abs(math.sin(math.radians(way.turn)))
    return min(0.97 * width / (w1 * c + h1 * s), 0.97 * height / (h1 * c + w1 * s), 150)


def _print_within(rng, image, text, way, size, box, rgb):
    """Prints the text somewhere within `box`, shrunk where it is too large. Returns the ink's box."""
    x0, y0, x1, y1 = box
    for _ in range(4):
        mask = text_mask(rng, text, _font(way.path, int(size)), way.turn, int(way.spacing * size))
        if mask.width <= x1 - x0 and mask.height <= y1 - y0:
            break
        size *= min((x1 - x0) / mask.width, (y1 - y0) / mask.height) * 0.97
    x = rng.randint(x0, max(x0, x1 - mask.width))
    y = rng.randint(y0, max(y0, y1 - mask.height))
    ink_box = (x, y, x + mask.width, y + mask.height)
    if callable(rgb):
        rgb = rgb(ink_box)
    image.paste(rgb, (x, y), mask)
    return ink_box


def draw_text_picture(rng, width, height, text):
    """A picture of one printed line."""
    back = backdrop(rng, width, height, dark=rng.random() < 0.25, paint=rng.random() < 0.3)
    way = random_print(rng)
    box = (_TEXT_MARGIN, _TEXT_MARGIN, width - _TEXT_MARGIN, height - _TEXT_MARGIN)
    largest = _largest_size(text, way, box[2] - box[0], box[3] - box[1])
    size = rng.uniform(min(largest, max(22.0, 0.3 * largest)), largest)

    def choose_ink(at):
        ground = back.color
        if rng.random() < 0.15:  # a label behind the text
            ground = _tint(rng, not back.dark)
            ImageDraw.Draw(back.image).rectangle((at[0] - 9, at[1] - 9, at[2] + 8, at[3] + 8), fill=ground)
        return ink(rng, ground)

    _print_within(rng, back.image, text, way, size, box, choose_ink)
    return back.image


def draw_lines_picture(rng, width, height, texts):
    """A picture of several printed lines, one below the other."""
    back = backdrop(rng, width, height, dark=rng.random() < 0.25, paint=rng.random() < 0.4)
    alike = rng.random() < 0.5
    way, rgb = random_print(rng), ink(rng, back.color)
    way.turn = 0.0
    band = (height - 2 * _TEXT_MARGIN) / len(texts)
    for i, text in enumerate(texts):
        if not alike:
            way, rgb = random_print(rng), ink(rng, back.color)
            way.turn *= 0.3
        box = (_TEXT_MARGIN, round(_TEXT_MARGIN + i * band + 2), width - _TEXT_MARGIN,
               round(_TEXT_MARGIN + (i + 1) * band - 2))
        largest = _largest_size(text, way, box[2] - box[0], box[3] - box[1])
        _print_within(rng, back.image, text, way, rng.uniform(max(min(largest, 20.0), 0.5 * largest),
                                                              largest), box, rgb)
    return back.image


def _luma(rgb):
    return 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]


def ink(rng, ground):
    """A colour to write with that is readable on `ground`."""
    light = _luma(ground) > 128
    for _ in range(12):
        rgb = (pick_color(rng, rng.choice(COLORS)) if rng.random() < 0.55 else
               (rng.randint(0, 50),) * 3 if light else (rng.randint(205, 255),) * 3)
        if abs(_luma(rgb) - _luma(ground)) > 85:
            return rgb
    return (0, 0, 0) if light else (255, 255, 255)


# ---------------------------------------------------------------------------------------------- charts


@dataclasses.dataclass
class Chart:
    """A bar chart. Values are multiples of `step` unless `printed` over the bars."""
    labels: list
    values: list
    step: int
    ticks: int  # the axis runs from 0 to step * ticks
    printed: bool  # the values stand over the bars
    axis: bool  # tick labels are drawn
    title: str = ""


def chart_font_size(width, height):
    return max(12, min(22, round(min(width, height) / 19)))


@functools.lru_cache(maxsize=None)
def label_width(text, size):
    """How wide a chart's label is at the most, in pixels, whichever font is chosen for it."""
    return max(_font(path, size).getlength(text) for path in _chart_fonts())


@functools.lru_cache(maxsize=None)
def _chart_fonts():
    wanted = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "LiberationSans-Regular.ttf",
              "LiberationSans-Bold.ttf", "FreeSans.ttf", "OpenSans-Regular.ttf", "Carlito-Regular.ttf",
              "Roboto-Regular.ttf", "LiberationSerif-Regular.ttf")
    found = [path for path in font_files() if os.path.basename(path) in wanted]
    return tuple(found) or font_files()[:4]


def draw_chart(rng, width, height, chart):
    """The chart as a picture."""
    dark = rng.random() < 0.15
    back = backdrop(rng, width, height, dark=dark, paint=None if dark else rng.random() < 0.6)
    image = back.image
    draw = ImageDraw.Draw(image)
    size = chart_font_size(width, height)
    font = _font(rng.choice(_chart_fonts()), size)
    line = (rng.randint(20, 90),) * 3 if not dark else (rng.randint(180, 240),) * 3
    faint = (rng.randint(195, 220),) * 3 if not dark else (rng.randint(60, 85),) * 3
    top_value = chart.step * chart.ticks
    left = 8 + (int(font.getlength(str(top_value))) + 6 if chart.axis else 0)
    bottom = height - size - 12
    top = 10 + (size + 4 if chart.printed else size // 2) + (size + 6 if chart.title else 0)
    right = width - 8
    if chart.title:
        draw.text(((width - font.getlength(chart.title)) / 2, 5), chart.title, font=font, fill=line)

    def y_of(value):
        return bottom - (bottom - top) * value / top_value

    if chart.axis:
        grid = rng.random() < 0.75 or not chart.printed
        for k in range(chart.ticks + 1):
            y = round(y_of(k * chart.step))
            if grid:
                draw.line((left, y, right, y), fill=faint)
            draw.line((left - 4, y, left, y), fill=line)
            text = str(k * chart.step)
            draw.text((left - 6 - font.getlength(text), y - size * 0.62), text, font=font, fill=line)
        draw.line((left, top - 4, left, bottom), fill=line)
    column = (right - left) / len(chart.labels)
    bar = column * rng.uniform(0.5, 0.8)
    colors = [c for c in palette(dark) if c not in ("gray", "white", "black")]
    one = rng.choice(colors)
    plain = rng.random() < 0.5
    shades = [visible_color(rng, one, back)] * len(chart.labels) if plain else [
        visible_color(rng, c, back) for c in rng.sample(colors, len(chart.labels))
    ]
    edge = line if rng.random() < 0.2 else None
    for i, (label, value) in enumerate(zip(chart.labels, chart.values)):
        middle = left + column * (i + 0.5)
        y = round(y_of(value))
        draw.rectangle((round(middle - bar / 2), y, round(middle + bar / 2), bottom),
                       fill=shades[i],
                       outline=edge)
        draw.text((middle - font.getlength(label) / 2, bottom + 4), label, font=font, fill=line)
        if chart.printed:
            text = str(value)
            draw.text((middle - font.getlength(text) / 2, y - size - 4), text, font=font, fill=line)
    draw.line((left, bottom, right, bottom), fill=line)
    return image


# ------------------------------------------------------------------------------------------------ sizes

_SIDES_SMALL = (128, 160, 192, 224, 256)
_SIDES_LARGE = (288, 320, 352, 384, 416, 448, 480, 512)


def random_size(rng, low=SIDE_MIN, high=SIDE_MAX):
    """(width, height), half of them below 288; mostly multiples of 32; neither side twice the other."""
    if low < 288 and (high < 288 or rng.random() < 0.6):
        sides = [s for s in _SIDES_SMALL if low <= s <= high]
    else:
        sides = [s for s in _SIDES_LARGE if low <= s <= high]
    width = rng.choice(sides)
    height = width
    if rng.random() < 0.7:
        near = [
            s for s in _SIDES_SMALL + _SIDES_LARGE
            if low <= s <= high and 0.5 * width <= s <= 2 * width and s <= width + 128
        ]
        height = rng.choice(near)
    if rng.random() < 0.1:
        width = max(low, min(high, width + rng.randint(-15, 15)))
        height = max(low, min(high, height + rng.randint(-15, 15)))
    return width, height
