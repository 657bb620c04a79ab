"""Hashes of what Pillow makes of random images of many sizes.

    python3 -m pip install pillow==12.3.0 && python3 make_resize_cases.py > resize_cases.txt

Each line: filter, mode, width and height of the image, of what it is scaled to, of what is cut out of the middle of that, and
the FNV-1a hash of the pixels. `crop` cuts as torchvision's CenterCrop does, the others as transformers does.
"""
import random
import PIL
from PIL import Image

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS, "nearest": Image.NEAREST,
           "box": Image.BOX, "hamming": Image.HAMMING}


def noise(width, height):
    state, pixels = width * 65536 + height, bytearray()
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) % 2**32
        pixels.append(255 * (state >> 29 & 1) if state >> 30 == 0 else state >> 16 & 255)
    return Image.frombytes("RGB", (width, height), bytes(pixels))


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def case(mode, size, to, target):
    image = noise(*size)
    for name, filter in FILTERS.items():
        scaled = to
        if mode in ("crop", "shortest_edge"):
            short, (width, height) = to[0], size
            scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        left, top = scaled[0] - target[0], scaled[1] - target[1]
        left, top = (round(left / 2), round(top / 2)) if mode == "crop" else (left // 2, top // 2)
        out = image.resize(scaled, filter).crop((left, top, left + target[0], top + target[1]))
        print(name, mode, *size, *to, *target, f"{fnv(out.tobytes()):016x}")


print("# Pillow", PIL.__version__)
rnd = random.Random(7)
for _ in range(50):
    size, to = (rnd.randint(1, 130), rnd.randint(1, 130)), (rnd.randint(1, 90), rnd.randint(1, 90))
    case("squash", size, to, to)
for size, to in [((300, 7), (16, 16)), ((7, 300), (16, 20)), ((1, 1), (5, 4)), ((64, 64), (64, 20)), ((64, 64), (20, 64)), ((224, 180), (64, 64)),
                 ((170, 224), (64, 64)), ((640, 400), (32, 32))]:
    case("squash", size, to, to)
for _ in range(8):
    size, side = (rnd.randint(20, 150), rnd.randint(20, 150)), rnd.randint(8, 60)
    case("crop", size, (side, side), (side, side))
    case("shortest_edge", size, (side, side), (side, side))
    case("shortest_edge", size, (side, side), (side * 7 // 8, side * 7 // 8))
    case("squash", size, (side, side), (side * 7 // 8, side * 7 // 8))
