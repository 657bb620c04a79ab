#!/usr/bin/env python3
"""A folder of 20,000 photos, one in a hundred of them damaged: every good one is captioned, every bad one named, the exit
code is 3, and memory stays what it is for 1,000.

    python3 benches/many_photos.py target/release/patchword [--photos 20000] [--few 1000] [--from FOLDER OF PHOTOS] \
        [-- FLAGS OF CAPTION, such as --model tests/fixtures/parity/blip]

Python 3 alone. Photos of FOLDER (../shared/flickr8k/images where it is there, else datasets/photos) are linked under new
names in nested folders, some with a wrong extension, some with a name that is no UTF-8; those that are damaged are copies.
"""
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PNG = b"\x89PNG\r\n\x1a\n"
DAMAGES = [
    ("empty", lambda photo: b""),
    ("text", lambda photo: b"<html>404 Not Found</html>\n"),
    ("cut at a half", lambda photo: photo[: len(photo) // 2]),
    ("cut in the header", lambda photo: photo[:20]),
    ("zeros from the middle on", lambda photo: photo[: len(photo) // 2] + bytes(len(photo) - len(photo) // 2)),
    ("no tables", lambda photo: photo[:2] + photo[-2:]),
    ("zeros alone", lambda photo: bytes(4096)),
    ("PNG of 4 gigapixels", lambda photo: PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")),
    ("PNG whose data end early", lambda photo: PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")),
    ("pointer of Git LFS", lambda photo: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
        + b"\nsize 12345\n"),
]


def build(folder: bytes, photos, count: int):
    bad = []
    for number in range(count):
        source = photos[number % len(photos)]
        place = os.path.join(folder, b"%02d" % (number % 37), b"album %d" % (number // 500))
        os.makedirs(place, exist_ok=True)
        ending = {3: b".png", 7: b".webp"}.get(number % 97, b".jpg")
        name = b"caf\xe9-%06d" % number if number % 211 == 5 else b"photo-%06d" % number
        target = os.path.join(place, name + ending)
        if number % 100 == 50:
            _, damage = DAMAGES[number // 100 % len(DAMAGES)]
            with open(source, "rb") as file, open(target, "wb") as out:
                out.write(damage(file.read()))
            bad.append(target)
        else:
            os.link(source, target) if os.stat(source).st_dev == os.stat(place).st_dev else os.symlink(source, target)
    return bad


def run(program, folder, flags, log):
    start, first = time.monotonic(), None
    process = subprocess.Popen([program, "caption", folder, "--format", "text", *flags], stdout=subprocess.PIPE,
                               stderr=open(log, "wb"), env={**os.environ, "PATCHWORD_DEVICE": "flex"})
    lines = []
    for line in process.stdout:
        first = first or time.monotonic() - start
        lines.append(line)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, lines, open(log, "rb").read(), usage.ru_maxrss / 1024, first or 0, time.monotonic() - start


def main():
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, flags = sys.argv[1:end], sys.argv[end + 1 :]
    option = lambda name, usual: arguments[arguments.index(name) + 1] if name in arguments else usual
    program = str(Path(arguments[0]).resolve())
    shared = ROOT.parent / "shared/flickr8k/images"
    place = Path(option("--from", shared if shared.is_dir() else ROOT / "datasets/photos"))
    photos = sorted(os.fsencode(path) for path in place.iterdir() if path.suffix == ".jpg")
    flags = [str(Path(flag).resolve()) if (Path(flag) / "config.json").is_file() else flag for flag in flags]
    peaks = []
    with tempfile.TemporaryDirectory() as temporary:
        for count in (int(option("--few", 1000)), int(option("--photos", 20000))):
            folder = os.fsencode(os.path.join(temporary, str(count)))
            bad = build(folder, photos, count)
            code, lines, said, peak, first, seconds = run(program, folder, flags, os.path.join(temporary, "log"))
            named = [path for path in bad if path in said or escaped(path) in said]
            captioned = {line.split(b"\t")[0] for line in lines}
            print(f"{count} photos: exit code {code}, {len(lines)} captioned, {len(named)} of {len(bad)} bad ones named, "
                  f"peak memory {peak:.0f} MB, first caption after {first:.1f} s, {seconds:.0f} s in all")
            assert code == 3 and len(lines) == len(captioned) == count - len(bad) and len(named) == len(bad), said[-2000:]
            assert not captioned & set(bad)
            peaks.append(peak)
            shutil.rmtree(folder)
    print(f"peak memory {peaks[1] / peaks[0]:.3f} of that of the small folder")
    assert peaks[1] < 1.1 * peaks[0]


def escaped(path: bytes) -> bytes:
    return re.sub(rb"[\x80-\xff]", lambda byte: b"\\x%02X" % byte[0][0], path)


if __name__ == "__main__":
    main()
