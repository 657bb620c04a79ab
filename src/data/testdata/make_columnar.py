"""Makes the tables beside it as Hugging Face's datasets and pyarrow write them: three images of 8 x 6 pixels and their captions.

    pip install datasets pyarrow pillow numpy     # datasets 5.2.0, pyarrow 26.0.1, Pillow 12.3.0
    python3 src/data/testdata/make_columnar.py
"""
import io, os, shutil
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image as ImageFeature, List, Value
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
os.chdir(HERE)
COLOURS = [(250, 20, 30), (30, 240, 40), (20, 30, 250)]


def png(colour):
    out = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), colour, np.uint8)).save(out, "PNG", optimize=True)
    return out.getvalue()


images = [{"bytes": png(colour), "path": f"{name}.png"} for colour, name in zip(COLOURS, ("red", "green", "blue"))]
captions = [["a red card", "it is red"], ["ein grünes Blatt"], ["a blue 🐕", "blue, \"quoted\"", "all blue"]]
rows = Dataset.from_dict({"image": images, "captions": captions}, features=Features({"image": ImageFeature(), "captions": List(Value("string"))}))
rows.to_parquet("lists.parquet", batch_size=2)
shutil.rmtree("saved", ignore_errors=True)
rows.save_to_disk("saved", num_shards=2)
# Nulls, dictionaries, other columns, several row groups and pages.
struct = pa.array(images + [{"bytes": None, "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
table = pa.table({
    "url": pa.array([None, "http://x", None, None]), "image": struct,
    "text": pa.array([texts[0] for texts in captions] + ["no image"]).dictionary_encode(),
    "embedding": pa.array([[0.5, 1.5]] * 4), "split": pa.array(["train", "validation", "test", "train"]),
})
pq.write_table(table, "columns.parquet", row_group_size=2, compression="zstd", data_page_version="2.0")
with pa.OSFile("columns.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table.slice(0, 3), max_chunksize=2)
