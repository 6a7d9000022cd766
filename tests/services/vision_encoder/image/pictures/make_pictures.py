#!/usr/bin/env python3
"""Writes the small pictures of this folder and expected.txt: what Pillow reads from each.

A line of expected.txt is: file, width, height, sha256 of the RGB bytes with alpha dropped, sha256 with
alpha composited on white. Needs Pillow; made with 9.4 on libjpeg-turbo 2.1.5 and libwebp 1.2.4.
ycck.jpg is not written here: Pillow cannot; it was encoded by libjpeg-turbo from cmyk.jpg's samples.
"""
import hashlib
import pathlib
import random
import struct
import zlib

from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
W, H = 37, 29
rng = random.Random(7)


def sample(x, y, c, top):
    """A smooth picture with some noise, in 0 .. top."""
    v = (x * (c + 2) * 5 + y * (7 - c) * 3 + rng.randrange(24)) % 256
    return v * top // 255


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(samples, depth):
    """One row's samples, most significant bits first."""
    if depth == 16:
        return b"".join(struct.pack(">H", s) for s in samples)
    bits, count, out = 0, 0, bytearray()
    for s in samples:
        bits, count = bits << depth | s, count + depth
        if count == 8:
            out.append(bits)
            bits, count = 0, 0
    if count:
        out.append(bits << (8 - count))
    return bytes(out)


def png(name, colour, depth, channels, interlaced=False, palette=None, trns=None, extra=b""):
    top = (1 << depth) - 1 if palette is None else len(palette) - 1
    pixels = [[[sample(x, y, c, top) for c in range(channels)] for x in range(W)] for y in range(H)]
    if trns and colour == 0:  # let the transparent colour occur
        pixels[3][5] = [struct.unpack(">H", trns)[0]]
    if trns and colour == 2:
        pixels[3][5] = list(struct.unpack(">HHH", trns))
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes:
        for y in range(y0, H, dy):
            row = [s for x in range(x0, W, dx) for s in pixels[y][x]]
            if row:
                raw += b"\0" + pack(row, depth)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, int(interlaced)))
    data += extra
    if palette is not None:
        data += chunk(b"PLTE", b"".join(bytes(p) for p in palette))
    if trns:
        data += chunk(b"tRNS", trns)
    (HERE / name).write_bytes(data + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def palette(n):
    return [(i * 255 // (n - 1), (i * 97 + 31) % 256, 255 - i * 200 // (n - 1)) for i in range(n)]


for depth in (1, 2, 4, 8, 16):
    png(f"grey{depth}.png", 0, depth, 1)
for depth in (1, 2, 4, 8):
    png(f"palette{depth}.png", 3, depth, 1, palette=palette(1 << depth))
for depth in (8, 16):
    png(f"rgb{depth}.png", 2, depth, 3)
    png(f"rgba{depth}.png", 6, depth, 4)
    png(f"grey_alpha{depth}.png", 4, depth, 2)
png("rgb8_interlaced.png", 2, 8, 3, interlaced=True)
png("rgba8_interlaced.png", 6, 8, 4, interlaced=True)
png("grey16_interlaced.png", 0, 16, 1, interlaced=True)
png("palette4_interlaced.png", 3, 4, 1, interlaced=True, palette=palette(16))
png("palette8_alpha.png", 3, 8, 1, palette=palette(256), trns=bytes((i * 3) % 256 for i in range(200)))
png("grey8_key.png", 0, 8, 1, trns=struct.pack(">H", 77))
png("rgb8_key.png", 2, 8, 3, trns=struct.pack(">HHH", 9, 8, 7))
tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
png("rgb8_exif6.png", 2, 8, 3, extra=chunk(b"eXIf", tiff))

rgba = Image.open(HERE / "rgba8.png")
rgb = Image.open(HERE / "rgb8.png")
for name, options in {"baseline_444": {"subsampling": 0}, "baseline_422": {"subsampling": 1}, "baseline_420": {},
                      "progressive": {"progressive": True}}.items():
    rgb.save(HERE / f"{name}.jpg", quality=85, **options)
rgb.convert("L").save(HERE / "grey.jpg", quality=85)
Image.merge("CMYK", rgba.split()).save(HERE / "cmyk.jpg", quality=85)
rgb.save(HERE / "lossy.webp", quality=70)
rgb.save(HERE / "lossless.webp", lossless=True)
rgba.save(HERE / "lossy_alpha.webp", quality=70)
rgba.save(HERE / "lossless_alpha.webp", lossless=True, exact=True)
exif = Image.Exif()
exif[0x0112] = 8
rgb.save(HERE / "lossy_exif8.webp", quality=70, exif=exif)
rgba.save(HERE / "animated.webp", save_all=True, append_images=[rgba.transpose(Image.FLIP_LEFT_RIGHT)], duration=100,
          lossless=True)

lines = []
for path in sorted(HERE.iterdir()):
    if path.suffix not in (".png", ".jpg", ".webp"):
        continue
    image = ImageOps.exif_transpose(Image.open(path))
    drop = image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white.paste(with_alpha, mask=with_alpha.split()[3])
    else:
        white = drop
    digests = [hashlib.sha256(i.tobytes()).hexdigest() for i in (drop, white)]
    lines.append(f"{path.name} {image.width} {image.height} {digests[0]} {digests[1]}\n")
(HERE / "expected.txt").write_text("".join(lines))
