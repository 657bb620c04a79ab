#!/usr/bin/env python3
"""Captions photos from every kind of input into every kind of output, and has the programs of others read all of it:
tarfile, webdataset, pyarrow, pandas, Hugging Face datasets (imagefolder, parquet, save_to_disk), exiftool, Pillow.

    apt-get install libimage-exiftool-perl
    python3 -m venv venv && venv/bin/pip install pyarrow pandas datasets webdataset pillow
    cargo build --release
    venv/bin/python tests/caption_formats.py target/release/patchword

Run it in the root of the checkout: it captions datasets/photos with the captioner that ships, greedily. Names of its
parts (archives, tables, text_formats, xmp_sidecars, embedded) after the program run only these.
"""
import io, json, os, shutil, struct, subprocess, sys, tarfile, tempfile
from pathlib import Path

import datasets, pandas, pyarrow.parquet, webdataset
from PIL import Image, PngImagePlugin

binary = os.path.abspath(sys.argv[1])
source = Path("datasets/photos").resolve()
datasets.disable_progress_bars()
checks = 0


def check(condition, *what):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"FAILED: {' '.join(map(str, what))}")


def caption(*arguments, code=0, **options):
    command = [binary, "caption", *map(str, arguments), "--num-beams", "1"]
    environment = {**os.environ, "PATCHWORD_DEVICE": "flex"}
    ended = subprocess.run(command, capture_output=True, env=environment, **options)
    check(ended.returncode == code, command, ended.returncode, ended.stderr.decode(errors="replace"))
    return ended


def exif(*arguments):
    ended = subprocess.run(["exiftool", "-j", *map(str, arguments)], capture_output=True, text=True)
    check(ended.stdout, "exiftool", arguments, ended.stderr)
    return json.loads(ended.stdout)


def lines(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def jpeg_parts(data):
    """Segments, and all from the scan on as one."""
    parts, at = [], 2
    while data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2:at + 4])[0]
        parts.append(data[at:at + 2 + length])
        at += 2 + length
    return [part for part in parts if b"http://ns.adobe.com/xap/" not in part[:40]] + [data[at:]]


def png_parts(data):
    parts, at = [], 8
    while at < len(data):
        length = struct.unpack(">I", data[at:at + 4])[0]
        parts.append(data[at:at + 12 + length])
        at += 12 + length
    return [part for part in parts if b"XML:com.adobe.xmp" not in part[:40]]


def webp_parts(data):
    check(struct.unpack("<I", data[4:8])[0] == len(data) - 8, "RIFF's length")
    parts, at = [], 12
    while at < len(data):
        length = struct.unpack("<I", data[at + 4:at + 8])[0]
        parts.append(data[at:at + 8 + length + length % 2])
        at += 8 + length + length % 2
    return [part for part in parts if part[:4] not in (b"XMP ", b"VP8X")]


PARTS = {".jpg": jpeg_parts, ".png": png_parts, ".webp": webp_parts}


def archives(work, usual):
    """webdataset's own shards, and tar as people make it."""
    (work / "shards").mkdir()
    with webdataset.ShardWriter(str(work / "shards/%06d.tar"), maxcount=5, verbose=0) as writer:
        for photo in sorted(usual):
            key = Path(photo).stem
            writer.write({"__key__": key, "jpg": (source / photo).read_bytes(), "txt": f"old {key}"})
    caption("shards/{000000..000001}.tar", "-o", "tar.jsonl", "-o", "tar.csv", "--write", "txt", "--write-to", "side",
            "--template", "{caption} / {existing}", "--manifest", "tar.db", cwd=work)
    found = lines(work / "tar.jsonl")
    check(len(found) == len(usual), "members", len(found))
    for line in found:
        shard, member = line["path"].rsplit("/", 1)
        check(line["caption"] == f"{usual[member]} / old {Path(member).stem}", line)
        with tarfile.open(work / shard) as archive:
            check(member in archive.getnames(), member)
        text = (work / "side" / Path(shard).name / member).with_suffix(".txt").read_text()
        check(text.strip() == line["caption"], text)
    # The sidecars make a shard again, which webdataset reads.
    with tarfile.open(work / "again.tar", "w") as archive:
        for line in found:
            key = Path(line["path"]).stem
            archive.add(source / f"{key}.jpg", f"{key}.jpg")
            archive.add(work / "side" / Path(line["path"]).parent.name / f"{key}.txt", f"{key}.txt")
    samples = list(webdataset.WebDataset(str(work / "again.tar"), shardshuffle=False).decode("pil").to_tuple("jpg", "txt"))
    check(len(samples) == len(usual) and all("/ old" in text for _, text in samples), samples)
    again = caption("shards", "-o", "tar.jsonl", "--manifest", "tar.db", cwd=work)
    check(f"0 written, {len(usual)} known" in again.stderr.decode(), again.stderr)
    caption("shards/*.tar", "--write", "txt", code=2, cwd=work)


def tables(work, usual):
    """Hugging Face's parquet with bytes, parquet with paths, save_to_disk; and Parquet as an output."""
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    held = [{"bytes": (source / photo).read_bytes(), "path": photo} for photo in sorted(usual)]
    data = datasets.Dataset.from_dict({"image": held, "text": [f"old {photo}" for photo in sorted(usual)]}, features=features)
    (work / "hub/data").mkdir(parents=True)
    data.to_parquet(work / "hub/data/train-00000-of-00001.parquet")
    data.save_to_disk(work / "saved")
    shutil.copytree(source, work / "beside/images")
    pandas.DataFrame({"file_name": sorted(usual)}).to_parquet(work / "beside/list.parquet")
    for place in ["hub/data/train-00000-of-00001.parquet", "hub", "saved", "beside/list.parquet"]:
        caption(place, "-o", "out.parquet", "-o", "out.jsonl", "--overwrite", cwd=work)
        table = pyarrow.parquet.read_table(work / "out.parquet")
        check(table.schema.names == ["path", "caption", "confidence", "score", "words", "model", "path_bytes"], table.schema)
        frame = pandas.read_parquet(work / "out.parquet")
        check(len(frame) == len(usual), place, len(frame))
        check(sorted(frame["caption"]) == sorted(usual.values()), place, frame["caption"])
        for row, line in zip(frame.itertuples(), lines(work / "out.jsonl")):
            check((row.path, row.caption, row.model) == (line["path"], line["caption"], line["model"]), row)
            words = [(word["word"], round(word["probability"], 5)) for word in row.words]
            check(words == [(word["word"], round(word["probability"], 5)) for word in line["words"]], words)
            check(0 < row.confidence <= 1, row.confidence)
        if place.startswith("hub"):
            check(frame["path"][0] == "hub/data/train-00000-of-00001.parquet/astronaut.jpg", frame["path"][0])
        check(datasets.load_dataset("parquet", data_files=str(work / "out.parquet"))["train"][0]["words"], "datasets")
    pandas.DataFrame({"path": [str(source / "cat.jpg")]}).to_parquet(work / "elsewhere.parquet")
    caption("elsewhere.parquet", code=1, cwd=work)
    caption("elsewhere.parquet", "--allow-outside", cwd=work)


def text_formats(work, usual):
    photos = work / "photos"
    shutil.copytree(source, photos)
    hostile = ["=cmd|'calc'!A1.jpg", "two\nlines.jpg", "--help.jpg", "a,\"b\".jpg", "[x] {y} *.jpg", "ünïcode 雪.jpg"]
    for name in hostile:
        shutil.copy(source / "cat.jpg", photos / name)
    shutil.copy(source / "cat.jpg", os.fsencode(photos) + b"/caf\xe9.jpg")
    (photos / "bad.jpg").write_bytes(b"no image")
    os.symlink("cat.jpg", photos / "link.jpg")
    caption("photos", "-o", "a.csv", "-o", "a.jsonl", "-o", "a.parquet", "-o", "coco.json", "--per-word", cwd=work, code=3)
    frame = pandas.read_csv(work / "a.csv")
    check(list(frame.columns) == ["path", "caption", "confidence", "words"], frame.columns)
    table = pandas.read_parquet(work / "a.parquet")
    check(list(frame["path"]) == list(table["path"]) and list(frame["caption"]) == list(table["caption"]), frame)
    for name in hostile:
        row = frame[frame["path"] == f"photos/{name}"]
        check(len(row) == 1 and row.iloc[0]["caption"] == usual["cat.jpg"], name, row)
        check(json.loads(row.iloc[0]["words"])[0]["probability"] > 0, row)
    odd = table[table["path_bytes"].notna()]
    check(list(odd["path_bytes"]) == [b"photos/caf\xe9.jpg"], odd)
    check(len(json.loads((work / "coco.json").read_text())) == len(frame), "coco")
    caption("photos", "-o", "excel.csv", "--excel", cwd=work, code=3)
    check((work / "excel.csv").read_bytes().startswith(b"\xef\xbb\xbfpath,"), "byte order mark")
    check(len(pandas.read_csv(work / "excel.csv", encoding="utf-8-sig")) == len(frame), "excel")
    for name in ["metadata.jsonl", "metadata.parquet"]:
        folder = work / name.split(".")[1] / "set"
        shutil.copytree(source, folder)
        caption(folder, "-o", folder / name)
        loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(work / "cache"))
        check(sorted(loaded["text"]) == sorted(usual.values()), name, loaded)
        check(loaded[0]["image"].size[0] > 0, loaded)


def xmp_sidecars(work, usual):
    photos = work / "archive"
    shutil.copytree(source, photos)
    subprocess.run(["exiftool", "-q", "-XMP:Rating=4", "-XMP-dc:Subject=red", "-XMP-dc:Subject=green",
                    "-XMP-dc:Title-de=Katze", "-XMP-dc:Description-fr=un chat", photos / "cat.jpg.xmp"], check=True)
    caption("archive", "--write", "xmp", cwd=work)
    caption("archive", "--write", "xmp", "--xmp-language", "en", "--xmp-name", "stem", cwd=work)
    for photo in usual:
        tags, = exif("-G1", "-a", photos / f"{photo}.xmp")
        if photo != "cat.jpg":
            check(tags["XMP-dc:Description"] == usual[photo], tags)
        tags, = exif(photos / Path(photo).with_suffix(".xmp"), "-XMP-dc:all")
        check(tags["Description-en"] == usual[photo], tags)
    # A description in any language counts as one.
    tags, = exif(photos / "cat.jpg.xmp")
    check("Description" not in tags and tags["Description-fr"] == "un chat", tags)
    caption("archive/cat.jpg", "--write", "xmp", "--existing", "overwrite", cwd=work)
    tags, = exif(photos / "cat.jpg.xmp")
    check((tags["Rating"], tags["Subject"], tags["Title-de"]) == (4, ["red", "green"], "Katze"), tags)
    check((tags["Description"], tags["Description-fr"]) == (usual["cat.jpg"], "un chat"), tags)
    again = caption("archive", "--write", "xmp", cwd=work)
    check(f"0 written, {len(usual)} skipped" in again.stderr.decode(), again.stderr)
    check(not exif("-validate", "-warning", photos / "cat.jpg.xmp")[0].get("Warning"), "exiftool's validation")


def embedded(work, usual):
    photos = work / "embedded"
    photos.mkdir()
    cat, dog = Image.open(source / "cat.jpg"), Image.open(source / "dog.jpg")
    icc = b"\0" * 128 + b"an ICC profile that nobody reads"
    cat.save(photos / "exif.jpg", exif=Image.Exif().tobytes(), icc_profile=icc, comment="a comment", quality=90)
    dog.save(photos / "progressive.jpg", progressive=True)
    shutil.copy(source / "horses.jpg", photos / "tagged.jpg")
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-XMP:Rating=3", "-IPTC:Keywords=horse", "-EXIF:Artist=Me",
                    "-GPSLatitude=48.2", "-GPSLatitudeRef=N", photos / "tagged.jpg"], check=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "a test")
    dog.convert("RGBA").save(photos / "text.png", pnginfo=text, dpi=(300, 300))
    cat.convert("P").save(photos / "palette.png")
    dog.save(photos / "simple.webp", quality=80)
    cat.convert("RGBA").resize((333, 211)).save(photos / "lossless.webp", lossless=True, exif=Image.Exif().tobytes())
    shutil.copy(photos / "simple.webp", photos / "tagged.webp")
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-XMP:Rating=3", photos / "tagged.webp"], check=True)
    # A motion photo: a film behind the end of the JPEG.
    (photos / "motion.jpg").write_bytes((source / "moose.jpg").read_bytes() + b"ftypmp42 a film")
    before = {photo.name: photo.read_bytes() for photo in photos.iterdir()}
    kept = ["-G1", "-a", "-u", "-x", "System:all", "-x", "File:all", "-x", "XMP-dc:all", "-x", "XMP-x:all", "-x", "ExifTool:all",
            "-x", "RIFF:WebP_Flags", "-x", "RIFF:ImageWidth", "-x", "RIFF:ImageHeight", "-x", "Composite:all",
            "-x", "RIFF:VP8Version", "-x", "RIFF:HorizontalScale", "-x", "RIFF:VerticalScale"]
    tags_before = {Path(tags["SourceFile"]).name: tags for tags in exif(*kept, photos)}
    said = {line["path"].split("/")[-1]: line["caption"] for line in
            (json.loads(line) for line in caption("embedded", "--format", "jsonl", cwd=work).stdout.splitlines())}
    for name, data in before.items():
        check((photos / name).read_bytes() == data, "untouched", name)
    caption("embedded", "--embed", "--manifest", "embed.db", "--write", "txt", cwd=work)
    for tags in exif(*kept, photos, "-ext", "jpg", "-ext", "png", "-ext", "webp"):
        check(tags == tags_before[Path(tags["SourceFile"]).name], "tags", tags, tags_before[Path(tags["SourceFile"]).name])
    for name, data in before.items():
        now = (photos / name).read_bytes()
        parts = PARTS[Path(name).suffix]
        check(parts(now) == parts(data), "segments of", name)
        old_image, new_image = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(now))
        check(old_image.tobytes() == new_image.tobytes() and old_image.mode == new_image.mode, "pixels of", name)
        tags, = exif(photos / name)
        check(tags.get("Description") == said[name], name, tags)
        xmp = new_image.info.get("xmp") or new_image.info.get("XML:com.adobe.xmp")
        check(said[name] in (xmp if isinstance(xmp, str) else xmp.decode()), name, "Pillow")
    after = {photo.name: photo.read_bytes() for photo in photos.iterdir()}
    again = caption("embedded", "--embed", "--manifest", "embed.db", "--write", "txt", cwd=work)
    check(f"0 written, {len(before)} known" in again.stderr.decode(), again.stderr)
    again = caption("embedded", "--embed", cwd=work)
    check(f"0 written, {len(before)} skipped" in again.stderr.decode(), again.stderr)
    check(after == {photo.name: photo.read_bytes() for photo in photos.iterdir()}, "twice is once")


with tempfile.TemporaryDirectory() as folder:
    work = Path(folder)
    caption(source, "-o", work / "usual.jsonl")
    usual = {Path(line["path"]).name: line["caption"] for line in lines(work / "usual.jsonl")}
    check(len(usual) == 10, usual)
    parts = [archives, tables, text_formats, xmp_sidecars, embedded]
    for part in [part for part in parts if part.__name__ in sys.argv[2:] or not sys.argv[2:]]:
        (work / part.__name__).mkdir()
        part(work / part.__name__, usual)
        print(f"{part.__name__}: ok", flush=True)
print(f"{checks} checks passed")
