"""Makes the small images of this folder, and prints what Pillow decodes from the JPEGs.

    python3 -m pip install pillow==12.3.0 && python3 make_testdata.py
"""
from PIL import Image

QUADRANTS = [(250, 20, 30), (30, 240, 40), (20, 30, 250), (240, 230, 20)]


def quadrants(size=(32, 16), mode="RGB"):
    """Red, green over blue, yellow: one flat colour a quarter."""
    image = Image.new("RGB", size)
    w, h = size[0] // 2, size[1] // 2
    for index, colour in enumerate(QUADRANTS):
        image.paste(colour, ((index % 2) * w, (index // 2) * h, (index % 2 + 1) * w, (index // 2 + 1) * h))
    return image.convert(mode)


def show(name):
    image = Image.open(name)
    w, h = image.size
    rgb = image.convert("RGB")
    places = [(w // 4, h // 4), (3 * w // 4, h // 4), (w // 4, 3 * h // 4), (3 * w // 4, 3 * h // 4)]
    print(name, image.mode, image.size, [rgb.getpixel(place) for place in places])


def adobe(data, transform):
    """The same file with another colour transform in its Adobe segment; None takes the segment out."""
    at = data.index(b"\xff\xee")
    assert data[at + 4 : at + 9] == b"Adobe"
    if transform is None:
        return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data[: at + 15] + bytes([transform]) + data[at + 16 :]


# CMYK: Pillow writes it inverted, as Adobe does. Some black, so that K matters.
cmyk = Image.new("CMYK", (32, 16))
for index, ink in enumerate([(0, 240, 220, 10), (220, 0, 210, 60), (230, 200, 0, 0), (0, 20, 230, 120)]):
    cmyk.paste(ink, ((index % 2) * 16, (index // 2) * 8, (index % 2 + 1) * 16, (index // 2 + 1) * 8))
cmyk.save("cmyk_adobe.jpg", quality=95)
data = open("cmyk_adobe.jpg", "rb").read()
open("ycck_adobe.jpg", "wb").write(adobe(data, 2))
open("cmyk_plain.jpg", "wb").write(adobe(data, None))
quadrants().save("progressive.jpg", quality=95, progressive=True)
quadrants(mode="L").save("grey.jpg", quality=95)
quadrants().save("rgb_adobe.jpg", quality=95, keep_rgb=True)
for name in ["cmyk_adobe.jpg", "ycck_adobe.jpg", "cmyk_plain.jpg", "progressive.jpg", "grey.jpg", "rgb_adobe.jpg"]:
    show(name)
cmyk.save("cmyk.tif", compression="tiff_lzw")
show("cmyk.tif")

# A palette with a transparent entry.
palette = quadrants().quantize(4, dither=0)
palette.save("palette.png", transparency=palette.getpixel((0, 0)))
# Animations: the first frame is the quadrants, the second one black.
frames = [quadrants(), Image.new("RGB", (32, 16))]
frames[0].save("animated.png", save_all=True, append_images=frames[1:], duration=100)
frames[0].save("animated.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
frames[0].save("animated.gif", save_all=True, append_images=frames[1:], duration=100)
quadrants().save("lossy.webp", quality=95)
# Orientation 6 (rotate by 90 degrees clockwise) in the formats that carry it besides JPEG.
exif = Image.Exif()
exif[0x0112] = 6
quadrants().save("orientation6.png", exif=exif)
quadrants().save("orientation6.webp", exif=exif, lossless=True)
quadrants().save("orientation6.tif", tiffinfo={0x0112: 6})

# Resizing: a busy source and what Pillow makes of it.
source = Image.new("RGB", (61, 43))
state = 1
for y in range(43):
    for x in range(61):
        state = (state * 1103515245 + 12345) % 2**31
        noise = (state >> 16) % 90
        source.putpixel((x, y), ((x * 4 + noise) % 256, (y * 5 + x * y // 7) % 256, 255 if (x // 6 + y // 5) % 2 else noise))
source.save("resize_source.png")
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
for name, filter in FILTERS.items():
    source.resize((24, 20), filter).save(f"squash_{name}_24x20.png")
    source.resize((70, 30), filter).save(f"squash_{name}_70x30.png")
    # torchvision.transforms.Resize(24) and CenterCrop(24)
    width, height = int(24 * 61 / 43), 24
    left, top = int(round((width - 24) / 2.0)), 0
    source.resize((width, height), filter).crop((left, top, left + 24, top + 24)).save(f"crop_{name}_24x24.png")
