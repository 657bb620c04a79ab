"""Makes formats/: one small file of each kind that cameras, phones and scanners leave, and beside it the
pixels that a program of others decodes it to (NAME.png). From a photo of datasets/photos.

    pip install pillow tifffile imagecodecs numpy pillow-heif     # Pillow 13.0, tifffile 2026.3.3
    apt-get install libjpeg-turbo-progs libjxl-tools netpbm       # libjpeg-turbo 2.1.5, cjxl 0.7
    python3 src/image/testdata/make_formats.py                    # or the names of functions below
"""
import io, os, struct, subprocess, sys, tempfile, zlib
import numpy as np
import tifffile
from PIL import Image, ImageOps
import pillow_heif

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "formats")
PHOTOS = os.path.join(HERE, "../../../datasets/photos")
os.makedirs(OUT, exist_ok=True)


def first_photo():
    for folder, _, names in sorted(os.walk(PHOTOS)):
        for name in sorted(names):
            if name.lower().endswith((".jpg", ".jpeg")):
                return Image.open(os.path.join(folder, name)).convert("RGB")
    sys.exit("no photo")


photo = ImageOps.fit(first_photo(), (37, 27))
grey = photo.convert("L")
path = lambda name: os.path.join(OUT, name)


def reference(name, image):
    image.convert("RGB").save(path(name + ".png"), optimize=True)


def write(name, content):
    with open(path(name), "wb") as file:
        file.write(content)


def djpeg(content):
    return Image.open(io.BytesIO(subprocess.run(["djpeg", "-ppm"], input=content, capture_output=True, check=True).stdout))


def jpegs():
    ppm = io.BytesIO()
    photo.save(ppm, "PPM")
    scans = tempfile.NamedTemporaryFile("w", suffix=".txt")
    scans.write("0;\n1;\n2;\n")
    scans.flush()
    for sample in ("1x1", "2x1", "1x2", "2x2", "4x1", "4x2"):
        for suffix, more in (("", []), ("-scans", ["-scans", scans.name]), ("-progressive", ["-progressive"])):
            if suffix == "-progressive" and sample not in ("2x2", "4x1"):
                continue
            out = subprocess.run(["cjpeg", "-quality", "90", "-sample", sample, *more], input=ppm.getvalue(), capture_output=True, check=True).stdout
            name = f"sampled-{sample}{suffix}.jpg"
            write(name, out)
            reference(name, djpeg(out))
    out = subprocess.run(["cjpeg", "-quality", "90", "-restart", "1"], input=ppm.getvalue(), capture_output=True, check=True).stdout
    write("restarts.jpg", out)
    reference("restarts.jpg", djpeg(out))
    out = subprocess.run(["cjpeg", "-arithmetic"], input=ppm.getvalue(), capture_output=True, check=True).stdout
    write("refused-arithmetic.jpg", out)
    second = ImageOps.mirror(photo)
    photo.save(path("two-pictures.mpo"), "MPO", save_all=True, append_images=[second], quality=90)
    reference("two-pictures.mpo", Image.open(path("two-pictures.mpo")))


def tiffs():
    rgb, grey8 = np.array(photo), np.array(grey)
    alpha = np.tile(np.linspace(0, 255, rgb.shape[1]).astype(np.uint8), (rgb.shape[0], 1))
    over = np.round(rgb * (alpha[..., None] / 255) + 255 - alpha[..., None]).clip(0, 255).astype(np.uint8)
    save = lambda name, data, **more: tifffile.imwrite(path(name), data, metadata=None, **more)

    def pillow(name):
        reference(name, Image.open(path(name)))

    save("bigtiff.tif", rgb, photometric="rgb", bigtiff=True); pillow("bigtiff.tif")
    save("big-endian.tif", rgb, photometric="rgb", byteorder=">"); pillow("big-endian.tif")
    save("planar-lzw.tif", rgb.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="lzw", predictor=True); pillow("planar-lzw.tif")
    save("tiled-zip.tif", rgb, photometric="rgb", tile=(16, 16), compression="zlib"); pillow("tiled-zip.tif")
    save("rgb-jpeg.tif", rgb, photometric="rgb", compression="jpeg", compressionargs={"level": 95}); pillow("rgb-jpeg.tif")
    photo.save(path("ycbcr-jpeg.tif"), compression="jpeg"); pillow("ycbcr-jpeg.tif")
    save("white-is-zero.tif", 255 - grey8, photometric="miniswhite"); reference("white-is-zero.tif", grey)
    save("grey16.tif", grey8.astype(np.uint16) * 257, photometric="minisblack"); reference("grey16.tif", grey)
    save("grey-float.tif", grey8.astype(np.float32) / 255, photometric="minisblack"); reference("grey-float.tif", grey)
    save("rgb-half.tif", (rgb / 255).astype(np.float16), photometric="rgb"); reference("rgb-half.tif", photo)
    save("rgb16.tif", rgb.astype(np.uint16) * 257, photometric="rgb"); reference("rgb16.tif", photo)
    save("rgb32.tif", rgb.astype(np.uint32) * 16843009, photometric="rgb"); reference("rgb32.tif", photo)
    for bits in (2, 4):
        step = 255 // (2**bits - 1)
        samples = (grey8 // (256 >> bits)).astype(np.uint8)
        packed = bytearray()
        for row in samples:
            packed += int("".join(f"{value:0{bits}b}" for value in row).ljust(-(-len(row) * bits // 8) * 8, "0"), 2).to_bytes(-(-len(row) * bits // 8), "big")
        write(f"grey{bits}.tif", plain_tiff(photo.size, bits, bytes(packed)))
        reference(f"grey{bits}.tif", Image.fromarray(samples * step))
    grey.convert("1").save(path("fax-g4.tif"), compression="group4"); pillow("fax-g4.tif")
    grey.convert("1").save(path("bilevel-packbits.tif"), compression="packbits"); pillow("bilevel-packbits.tif")
    photo.quantize(50).save(path("palette.tif")); pillow("palette.tif")
    photo.convert("CMYK").save(path("cmyk-zip.tif"), compression="tiff_adobe_deflate"); pillow("cmyk-zip.tif")
    associated = np.dstack([np.round(rgb * (alpha[..., None] / 255)).astype(np.uint8), alpha])
    save("associated.tif", associated, photometric="rgb", extrasamples=["assocalpha"]); reference("associated.tif", Image.fromarray(over))
    save("unassociated.tif", np.dstack([rgb, alpha]), photometric="rgb", extrasamples=["unassalpha"]); reference("unassociated.tif", Image.fromarray(over))
    grey_alpha = np.dstack([grey8, alpha])
    save("grey-alpha.tif", grey_alpha, photometric="minisblack", extrasamples=["unassalpha"])
    reference("grey-alpha.tif", Image.alpha_composite(Image.new("RGBA", photo.size, "white"), Image.fromarray(grey_alpha, "LA").convert("RGBA")))
    photo.save(path("pages.tif"), save_all=True, append_images=[ImageOps.mirror(photo)]); reference("pages.tif", photo)


def plain_tiff(size, bits, samples):
    width, height = size
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 4, height), (279, 4, len(samples))]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4) + samples


EXIF = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, 6, 0)


def rotated():
    stored = photo.transpose(Image.Transpose.ROTATE_90)  # orientation 6 turns it back
    hexed = lambda data, kind: f"\n{kind}\n{len(data):8}\n{data.hex()}\n".encode()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    plain = io.BytesIO()
    stored.save(plain, "PNG")
    plain = plain.getvalue()
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    at, end = 33, len(plain) - 12
    for name, kind, data, place in [
        ("raw-exif", b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed(b"Exif\0\0" + EXIF, "exif")), at),
        ("raw-exif-plain", b"tEXt", b"Raw profile type exif\0" + hexed(EXIF, "exif"), at),
        ("raw-app1", b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(hexed(b"Exif\0\0" + EXIF, "generic profile")), at),
        ("late", b"eXIf", EXIF, end),
        ("xmp", b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp, at),
        ("xmp-compressed", b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp), at),
    ]:
        write(f"turned-{name}.apng", plain[:place] + chunk(kind, data) + plain[place:])
    webp = io.BytesIO()
    stored.save(webp, "WEBP", lossless=True, exif=b"Exif\0\0" + EXIF)
    content = webp.getvalue()
    at = content.index(b"EXIF") + 8
    if content[at : at + 4] != b"Exif":  # newer Pillow takes the prefix off
        padded = b"Exif\0\0" + EXIF
        content = content[: at - 4] + struct.pack("<I", len(padded)) + padded + b"\0" * (len(padded) % 2)
        content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    write("turned-prefixed.webp", content)
    webp = io.BytesIO()
    stored.save(webp, "WEBP", lossless=True, xmp=xmp)
    write("turned-xmp.webp", webp.getvalue())
    stored.save(path("turned-xmp.tif"), tiffinfo={700: xmp})
    photo.save(path("turned.png"), optimize=True)
    jpeg = io.BytesIO()
    stored.save(jpeg, "JPEG", quality=95)
    jpeg = jpeg.getvalue()
    packet = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    write("turned-xmp.jpg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet + jpeg[2:])


def others():
    pillow_heif.register_heif_opener()
    big = ImageOps.fit(first_photo(), (96, 64))
    big.save(path("photo.heic"), quality=80)
    reference("photo.heic", Image.open(path("photo.heic")))
    photo.save(path("photo.jp2"), quality_layers=[8]); reference("photo.jp2", Image.open(path("photo.jp2")))
    with tempfile.TemporaryDirectory() as folder:
        png, out = os.path.join(folder, "p.png"), path("photo.jxl")
        photo.save(png)
        subprocess.run(["cjxl", png, out, "-d", "1"], check=True, capture_output=True)
        subprocess.run(["djxl", out, os.path.join(folder, "o.png")], check=True, capture_output=True)
        reference("photo.jxl", Image.open(os.path.join(folder, "o.png")))
    # Cameras' files, as far as they matter here: a directory, a thumbnail, a preview, and data of a sensor.
    preview = io.BytesIO()
    ImageOps.fit(first_photo(), (320, 214)).save(preview, "JPEG", quality=30)
    preview, thumbnail = preview.getvalue(), io.BytesIO()
    photo.save(thumbnail, "JPEG")
    sensor = bytes(range(1, 251)) * 4
    decoded = djpeg(preview).transpose(Image.Transpose.ROTATE_270)  # orientation 6
    head = b"II*\0" + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + struct.pack("<HHHIII", 1, 274, 3, 1, 6, 0)
    write("camera.cr2", head + thumbnail.getvalue() + preview + sensor)
    write("camera.rw2", b"IIU\0" + head[4:8] + bytes(8) + head[16:] + thumbnail.getvalue() + preview + sensor)
    write("camera.cr3", struct.pack(">I", 24) + b"ftypcrx " + b"\0\0\0\1crx isom" + struct.pack(">I", 8 + 26) + b"CMT1" + EXIF + thumbnail.getvalue() + preview + sensor)
    decoded.save(path("camera.png"), optimize=True)
    write("refused-no-preview.raf", b"FUJIFILMCCD-RAW 0201" + bytes(80) + thumbnail.getvalue() + sensor)



def containers():
    import imagecodecs

    inks = 255 - np.asarray(photo.convert("CMYK"))
    write("inks-ycck.jpg", imagecodecs.jpeg8_encode(inks, colorspace="CMYK", outcolorspace="YCCK", level=95))
    reference("inks-ycck.jpg", Image.open(path("inks-ycck.jpg")))
    stored = photo.transpose(Image.Transpose.ROTATE_90)
    jpeg = io.BytesIO()
    stored.save(jpeg, "JPEG", quality=95)
    jpeg = jpeg.getvalue()
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 274, 4, 1, 6, 0)
    write("turned-long.jpg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])

    plain = io.BytesIO()
    photo.save(plain, "PNG")
    write("no-end.apng", plain.getvalue()[:-12]); reference("no-end.apng", photo)
    # Adam7 by netpbm.
    ppm = io.BytesIO()
    photo.save(ppm, "PPM")
    woven = subprocess.run(["pnmtopng", "-interlace"], input=ppm.getvalue(), capture_output=True, check=True).stdout
    write("no-end-interlaced.apng", woven[: woven.index(b"IEND") - 4]); reference("no-end-interlaced.apng", photo)

    icon = photo.crop((0, 0, 24, 24))
    icon.save(path("icon-png.ico"), sizes=[(24, 24)]); reference("icon-png.ico", icon)
    mask = Image.new("L", (24, 24), 255)
    mask.paste(0, (3, 2, 11, 9))
    with tempfile.TemporaryDirectory() as folder:
        icon.quantize(16).convert("RGB").save(os.path.join(folder, "i.ppm"))
        mask.save(os.path.join(folder, "m.pgm"))
        out = subprocess.run(["ppmtowinicon", "-andpgms", os.path.join(folder, "i.ppm"), os.path.join(folder, "m.pgm")], capture_output=True, check=True).stdout
    white = lambda image: Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    write("icon-mask.ico", out); reference("icon-mask.ico", white(Image.open(io.BytesIO(out))))
    pointer = bytearray(out)
    pointer[2] = 2
    pointer[10:14] = struct.pack("<HH", 5, 7)
    write("pointer.cur", bytes(pointer)); reference("pointer.cur", white(Image.open(io.BytesIO(out))))

    photo.convert("RGBA").save(path("odd.dds"), pixel_format="DXT1"); reference("odd.dds", Image.open(path("odd.dds")))
    tifffile.imwrite(path("refused-zstandard.tif"), np.array(photo)[:8, :8], photometric="rgb", compression="zstd", metadata=None)
    pillow_heif.register_heif_opener()
    photo.save(path("refused-444.heic"), quality=60, chroma=444)


for make in [globals()[name] for name in sys.argv[1:]] or [jpegs, tiffs, rotated, others, containers]:
    make()
total = sum(os.path.getsize(path(name)) for name in os.listdir(OUT))
print(len(os.listdir(OUT)), "files,", total, "bytes")
