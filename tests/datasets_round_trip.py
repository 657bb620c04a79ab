#!/usr/bin/env python3
"""Writes one small data set in many layouts with the tools that people use, and compares what patchword reads.

    python3 -m venv venv && venv/bin/pip install datasets pandas pyarrow pillow webdataset    # 5.2, 3.0, 26.0, 12.3
    cargo build --release --example dataset
    venv/bin/python tests/datasets_round_trip.py target/release/examples/dataset [LAYOUT...]

Every layout holds the same 12 photos of datasets/photos, made small, with their captions; a layout says which part of that
it keeps. Compared: split, captions in their order, size and mean colour of each image. Run it in the root of the checkout.
"""
import csv, io, json, os, subprocess, sys, tarfile, tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, Image as ImageFeature, Value
from PIL import Image

BINARY, WANTED = os.path.abspath(sys.argv[1]), sys.argv[2:]
PHOTOS = "datasets/photos"
List = getattr(datasets, "List", None) or datasets.Sequence
work = tempfile.TemporaryDirectory()
source = os.path.join(work.name, "source")
os.makedirs(source)

# --- The data set: name, split, captions, and the mean colour of the pixels.
SPLITS = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
EXTRA = ["a dog, \"quoted\", on grass", "ein Bär läuft", "日本の犬", "a 🐕 runs", "two  blanks", "semi;colon|bar", "it's a dog's life", "100 % dog"]
names = sorted(name for name in os.listdir(PHOTOS) if name.endswith(".jpg"))
photos = []
for index, split in enumerate(SPLITS):
    photo = Image.open(os.path.join(PHOTOS, names[index % len(names)])).convert("RGB").resize((64 + index, 48))
    path = os.path.join(source, f"photo_{index:02}.png")
    photo.save(path)
    captions = [f"photo {index} number {number}: {EXTRA[(index + number) % len(EXTRA)]}" for number in range(1 + index % 3)]
    photos.append({"path": path, "name": os.path.basename(path), "split": split, "captions": captions,
                   "size": photo.size, "mean": np.asarray(photo).reshape(-1, 3).mean(0)})
first = lambda photo: photo["captions"][:1]
every = lambda photo: photo["captions"]
content = lambda photo: open(photo["path"], "rb").read()


def images_in(folder, chosen=photos, splits=False):
    for photo in chosen:
        target = os.path.join(folder, photo["split"] if splits else "", photo["name"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content(photo))


def text(path, content, encoding="utf-8"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        file.write(content)


def table(chosen, captions=first, image="image", caption="text"):
    several = captions is every
    return Dataset.from_dict({image: [{"bytes": content(photo), "path": photo["name"]} for photo in chosen], caption: [captions(photo) if several else captions(photo)[0] for photo in chosen]},
                             features=Features({image: ImageFeature(), caption: List(Value("string")) if several else Value("string")}))


def split_of(name):
    return [photo for photo in photos if photo["split"] == name]


def in_splits(**more):
    return DatasetDict({name: table(split_of(name), **more) for name in ("train", "validation", "test")})


# --- Layouts. Each returns what is expected: {photo: captions}, and whether splits are named.
def hub_parquet(folder):
    os.makedirs(os.path.join(folder, "data"))
    for name, part in in_splits().items():
        for shard in range(2):
            part.shard(2, shard).to_parquet(os.path.join(folder, "data", f"{name}-{shard:05}-of-00002.parquet"))
    return first, True

def hub_parquet_lists(folder):
    os.makedirs(os.path.join(folder, "data"))
    for name, part in in_splits(captions=every, caption="captions").items():
        part.to_parquet(os.path.join(folder, "data", f"{name}-00000-of-00001.parquet"), batch_size=3)
    return every, True

def parquet_one_file(folder):
    table(photos).to_parquet(os.path.join(folder, "photos.parquet"))
    return first, False

def parquet_of_config(folder):  # as the Hub's converter lays them out: default/train/0000.parquet
    for name, part in in_splits().items():
        os.makedirs(os.path.join(folder, "default", name))
        part.to_parquet(os.path.join(folder, "default", name, "0000.parquet"))
    return first, True

def parquet_plain_bytes(folder):  # img2dataset's parquet, pandas: a column of bytes
    frame = pd.DataFrame({"key": [photo["name"] for photo in photos], "caption": [first(photo)[0] for photo in photos], "jpg": [content(photo) for photo in photos]})
    frame.to_parquet(os.path.join(folder, "00000.parquet"))
    return first, False

def parquet_compressions(folder):
    os.makedirs(os.path.join(folder, "data"))
    for index, compression in enumerate(["none", "snappy", "gzip", "zstd", "lz4"]):
        part = photos[index * 2 : index * 2 + 2] if index < 4 else photos[8:]
        arrow = table(part).data.table
        pq.write_table(arrow, os.path.join(folder, "data", f"part-{index}.parquet"), compression=compression, row_group_size=1, data_page_version="2.0" if index % 2 else "1.0")
    return first, False

def parquet_nulls(folder):  # rows without image bytes or captions beside good ones
    struct = [{"bytes": content(photo), "path": photo["name"]} for photo in photos]
    arrow = pa.table({"image": pa.array(struct, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                      "text": pa.array([first(photo)[0] for photo in photos]), "width": pa.array([None] * len(photos), pa.int32()),
                      "embedding": pa.array([[0.5, 1.5]] * len(photos)), "url": pa.array([None] * len(photos), pa.string())})
    pq.write_table(arrow, os.path.join(folder, "train.parquet"))
    return first, "train"

def parquet_large_types(folder):
    struct = [{"bytes": content(photo), "path": photo["name"]} for photo in photos]
    arrow = pa.table({"image": pa.array(struct, pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
                      "text": pa.array([first(photo)[0] for photo in photos], pa.large_string()).dictionary_encode()})
    pq.write_table(arrow, os.path.join(folder, "photos.parquet"))
    return first, False

def parquet_of_paths(folder):  # images as files beside, named by a path
    images_in(os.path.join(folder, "images"))
    pd.DataFrame({"image_path": ["images/" + photo["name"] for photo in photos], "caption": [first(photo)[0] for photo in photos]}).to_parquet(os.path.join(folder, "captions.parquet"))
    return first, False

def metadata_parquet(folder):
    images_in(folder, splits=True)
    for name in ("train", "validation", "test"):
        pd.DataFrame({"file_name": [photo["name"] for photo in split_of(name)], "text": [first(photo)[0] for photo in split_of(name)]}).to_parquet(os.path.join(folder, name, "metadata.parquet"))
    return first, True

def save_to_disk(folder):
    table(photos).save_to_disk(os.path.join(folder, "saved"))
    return first, False, "saved"

def save_to_disk_shards(folder):
    table(photos, captions=every, caption="captions").save_to_disk(os.path.join(folder, "saved"), num_shards=4)
    return every, False, "saved"

def save_to_disk_dict(folder):
    in_splits(captions=every).save_to_disk(os.path.join(folder, "saved"), num_shards={"train": 3, "validation": 1, "test": 1})
    return every, True, "saved"

def save_to_disk_one_split(folder):
    in_splits().save_to_disk(os.path.join(folder, "saved"))
    return first, "only:train", "saved/train"

def save_to_disk_with_indices(folder):  # select keeps an indices mapping, which save_to_disk flattens
    table(photos).select(range(11, -1, -1)).save_to_disk(os.path.join(folder, "saved"))
    return first, False, "saved"

def arrow_file_format(folder):  # pyarrow's file (random access) format, as Feather version 2
    arrow = pa.table({"image": pa.array([{"bytes": content(photo), "path": photo["name"]} for photo in photos]), "text": [first(photo)[0] for photo in photos]})
    with pa.OSFile(os.path.join(folder, "photos.arrow"), "wb") as sink, pa.ipc.new_file(sink, arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=5)
    return first, False

def imagefolder_jsonl(folder):
    images_in(folder, splits=True)
    for name in ("train", "validation", "test"):
        text(os.path.join(folder, name, "metadata.jsonl"), "".join(json.dumps({"file_name": photo["name"], "text": first(photo)[0]}) + "\n" for photo in split_of(name)))
    return first, True

def imagefolder_csv(folder):
    images_in(folder)
    pd.DataFrame({"file_name": [photo["name"] for photo in photos], "text": [first(photo)[0] for photo in photos]}).to_csv(os.path.join(folder, "metadata.csv"), index=False)
    return first, False

def webdataset_tar(folder):
    import webdataset as wds
    for name, part in (("train", photos[:8]), ("val", photos[8:10]), ("test", photos[10:])):
        with wds.TarWriter(os.path.join(folder, f"{name}-000000.tar")) as sink:
            for photo in part:
                sink.write({"__key__": photo["name"][:-4], "png": content(photo), "txt": first(photo)[0], "json": {"width": 1}, "cls": 3})
    return first, True

def webdataset_gz(folder):
    with tarfile.open(os.path.join(folder, "00000.tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for photo in photos:
            for extension, data in (("png", content(photo)), ("json", json.dumps({"caption": first(photo)[0], "url": "http://x"}).encode())):
                member = tarfile.TarInfo(f"./a folder/{'n' * 120}{photo['name'][:-4]}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return first, False

def img2dataset_files(folder):
    for index, photo in enumerate(photos):
        shard = os.path.join(folder, f"{index // 6:05}")
        os.makedirs(shard, exist_ok=True)
        stem = os.path.join(shard, f"{index:09}")
        with open(stem + ".png", "wb") as file:
            file.write(content(photo))
        text(stem + ".txt", first(photo)[0])
        text(stem + ".json", json.dumps({"caption": first(photo)[0], "url": "http://x", "key": f"{index:09}", "status": "success", "width": 1}))
    pd.DataFrame({"url": ["http://x"] * 12, "caption": [first(photo)[0] for photo in photos], "key": range(12), "status": "success"}).to_parquet(os.path.join(folder, "00000.parquet"))
    text(os.path.join(folder, "00000_stats.json"), "{}")
    return first, False

def coco(folder):
    images_in(os.path.join(folder, "train2017"), split_of("train"))
    images_in(os.path.join(folder, "val2017"), split_of("validation"))
    for name, year in (("train", "train2017"), ("validation", "val2017")):
        part = split_of(name)
        text(os.path.join(folder, "annotations", f"captions_{year}.json"), json.dumps({
            "info": {}, "licenses": [], "images": [{"id": index, "file_name": photo["name"], "width": 1, "height": 1} for index, photo in enumerate(part)],
            "annotations": [{"id": 10 * index + number, "image_id": index, "caption": caption} for index, photo in enumerate(part) for number, caption in enumerate(every(photo))]}))
    return every, "coco"

def karpathy(folder):
    images_in(os.path.join(folder, "images"))
    names = {"train": "train", "validation": "val", "test": "test"}
    text(os.path.join(folder, "dataset_photos.json"), json.dumps({"dataset": "photos", "images": [
        {"filename": photo["name"], "imgid": index, "split": names[photo["split"]], "sentids": [], "sentences": [{"raw": caption, "tokens": caption.split(), "imgid": index, "sentid": 0} for caption in every(photo)]}
        for index, photo in enumerate(photos)]}))
    return every, True

def blip_json(folder):
    images_in(folder)
    text(os.path.join(folder, "captions.json"), json.dumps([{"image": photo["name"], "caption": every(photo), "image_id": "x"} for photo in photos]))
    return every, False

def llava_json(folder):
    images_in(os.path.join(folder, "images"))
    text(os.path.join(folder, "llava.json"), json.dumps([{"id": str(index), "image": photo["name"], "conversations": [
        {"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": first(photo)[0]}]} for index, photo in enumerate(photos)]))
    return first, False

def messages_jsonl(folder):
    images_in(os.path.join(folder, "images"))
    text(os.path.join(folder, "train.jsonl"), "".join(json.dumps({"images": ["images/" + photo["name"]], "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": first(photo)[0]}]}]}) + "\n" for photo in photos))
    return first, False

def csv_layout(**dialect):
    encoding, header = dialect.pop("encoding", "utf-8"), dialect.pop("header", ["image", "caption"])
    def layout(folder):
        images_in(os.path.join(folder, "images"))
        rows = io.StringIO()
        writer = csv.writer(rows, **dialect)
        writer.writerow(header)
        for photo in photos:
            writer.writerows([photo["name"], caption] for caption in every(photo))
        # cp1252 has no Japanese and no emoji.
        content = rows.getvalue()
        text(os.path.join(folder, "captions.csv"), content.encode(encoding, "replace").decode(encoding), encoding)
        if encoding == "cp1252":
            return (lambda photo: [caption.encode(encoding, "replace").decode(encoding) for caption in every(photo)]), False
        return every, False
    return layout

def csv_quoted_lines(folder):
    images_in(folder)
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["file", "description"])
    for photo in photos:
        writer.writerow([photo["name"], first(photo)[0].replace("number", "number\n")])
    text(os.path.join(folder, "captions.csv"), rows.getvalue())
    return first, False

def flickr30k_results(folder):
    images_in(os.path.join(folder, "flickr30k_images"))
    text(os.path.join(folder, "results.csv"), "image_name| comment_number| comment\n" + "".join(
        f"{photo['name']}| {number}| {caption} .\n" for photo in photos for number, caption in enumerate(every(photo))))
    return (lambda photo: [caption + " ." for caption in every(photo)]), False

def flickr8k_kaggle(folder):
    images_in(os.path.join(folder, "Images"))
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["image", "caption"])
    for photo in photos:
        writer.writerows([photo["name"], caption] for caption in every(photo))
    text(os.path.join(folder, "captions.txt"), rows.getvalue())
    return every, False

def csv_unquoted(folder):  # written by hand: commas in captions, and no quotes
    images_in(folder)
    text(os.path.join(folder, "captions.csv"), "image,caption\n" + "".join(f"{photo['name']},{first(photo)[0].replace(chr(34), '')}, they say\n" for photo in photos))
    return (lambda photo: [first(photo)[0].replace('"', "") + ", they say"]), False

def sidecar(folder):
    images_in(folder)
    for index, photo in enumerate(photos):
        text(os.path.join(folder, photo["name"][:-4] + (".caption" if index % 2 else ".txt")), "\r\n".join(every(photo)) + ("\n" if index % 3 else ""), "utf-8-sig" if index % 4 == 0 else "utf-8")
    return every, False

LAYOUTS = {name: value for name, value in list(globals().items()) if callable(value) and getattr(value, "__code__", None) and value.__code__.co_varnames[:1] == ("folder",) and name not in ("images_in",)}
LAYOUTS |= {"csv_semicolons": csv_layout(delimiter=";"), "csv_tabs": csv_layout(delimiter="\t"), "csv_bom": csv_layout(encoding="utf-8-sig"),
            "csv_utf16": csv_layout(encoding="utf-16"), "csv_cp1252": csv_layout(encoding="cp1252"), "csv_bars": csv_layout(delimiter="|"), "csv_all_quoted": csv_layout(quoting=csv.QUOTE_ALL, lineterminator="\n"),
            "csv_other_names": csv_layout(header=["File Name", "Description"])}

failed = []
for name, layout in LAYOUTS.items():
    if WANTED and name not in WANTED:
        continue
    folder = os.path.join(work.name, name)
    os.makedirs(folder)
    expected, splits, *inner = layout(folder)
    ended = subprocess.run([BINARY, os.path.join(folder, *inner)], capture_output=True, text=True)
    wrong = [ended.stderr.strip()] if ended.returncode else []
    wrong += [line for line in ended.stderr.splitlines() if line.startswith("problem")]
    found = {tuple(record["image"]["size"]) if isinstance(record["image"], dict) else record["image"]: record for record in map(json.loads, ended.stdout.splitlines())}
    chosen = photos
    if isinstance(splits, str):
        chosen = {"only:train": split_of("train"), "coco": split_of("train") + split_of("validation")}.get(splits, photos)
    if len(found) != len(chosen):
        wrong.append(f"{len(found)} images of {len(chosen)}")
    for photo in chosen:
        record = found.get(tuple(photo["size"]))
        if record is None:
            wrong.append(f"no {photo['name']}")
            continue
        captions = [" ".join(caption.split()) for caption in expected(photo)]
        if record["captions"] != captions:
            wrong.append(f"{photo['name']}: captions {record['captions']}, expected {captions}")
        if abs(np.array(record["image"]["mean"]) - photo["mean"]).max() > 1e-6:
            wrong.append(f"{photo['name']}: other pixels")
        split = {"validation": "val"}.get(photo["split"], photo["split"]) if splits in (True, "coco", "only:train") else "train"
        if record["split"] != split:
            wrong.append(f"{photo['name']}: split {record['split']}, expected {split}")
    print("ok  " if not wrong else "FAIL", name, *([] if not wrong else ["\n    " + line[:300] for line in wrong[:5]]))
    failed += [name] if wrong else []
print(f"{len(failed)} of {len(WANTED or LAYOUTS)} layouts failed" if failed else "all layouts are read as they were written")
sys.exit(bool(failed))
