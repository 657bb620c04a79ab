"""`patchword score`, beside pycocoevalcap: from raw captions to BLEU, ROUGE-L and CIDEr.

    cargo build --release --locked
    python benches/against_pycocoevalcap.py [--program target/release/patchword] [REFERENCES.json PREDICTIONS.json]

Needs pycocoevalcap and Java, which its tokeniser is written in. The files are `{id: [captions]}` and `{id: caption}`; without them 5,000
images with five captions each are drawn from the words below. Five rounds in turn; medians, and the median of the rounds' ratios.
patchword's time is the whole program's, with METEOR, intervals and diversity besides; pycocoevalcap's is that of its calls alone.
"""

import argparse
import contextlib
import io
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

IMAGES, CAPTIONS, ROUNDS = 5000, 5, 5
WHO = "a man|a young woman|two dogs|the boy's brother|a brown-and-white dog|three children|an old man (smiling)|a girl".split("|")
DOES = "runs|is jumping|sits|plays|doesn't look|is riding a bike|stands|swims|climbs|walks".split("|")
WHERE = "through the grass|on a beach|in the snow|near a red car|in front of a crowd|at the pool|over a hurdle|in a blue shirt".split("|")
NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]


def drawn():
    draw = random.Random(1)
    caption = lambda: f"{draw.choice(WHO)} {draw.choice(DOES)} {draw.choice(WHERE)}, {draw.choice(WHERE)}.".capitalize()
    references = {str(image): [caption() for _ in range(CAPTIONS)] for image in range(IMAGES)}
    return references, {image: caption() for image in references}


def pycocoevalcap(references, predictions):
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        of = lambda captions: [{"caption": caption} for caption in captions]
        truth = PTBTokenizer().tokenize({image: of(captions) for image, captions in references.items()})
        said = PTBTokenizer().tokenize({image: of([caption]) for image, caption in predictions.items()})
        bleu, _ = Bleu(4).compute_score(truth, said)
        scores = [*bleu, Rouge().compute_score(truth, said)[0], Cider().compute_score(truth, said)[0]]
    return time.perf_counter() - start, scores


def patchword(program, references, predictions):
    command = [program, "score", "--references", references, "--predictions", predictions, "--json"]
    start = time.perf_counter()
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - start
    scores = json.loads(out)
    return seconds, [scores[name] for name in NAMES]


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown CPU")


def main():
    print(cpu())
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="target/release/patchword")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    references, predictions = [json.loads(file.read_text()) for file in arguments.files] or drawn()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, value in (("references.json", references), ("predictions.json", predictions)):
            files.append(str(Path(folder, name)))
            Path(files[-1]).write_text(json.dumps(value))
        rounds = [(patchword(arguments.program, *files), pycocoevalcap(references, predictions)) for _ in range(ROUNDS)]
    (_, ours), (_, theirs) = rounds[0]
    for name, own, other in zip(NAMES, ours, theirs):
        print(f"{name:8} patchword {own:.6f}, pycocoevalcap {other:.6f}, apart by {abs(own - other):.1e}")
    for name, times in (("patchword", [own for (own, _), _ in rounds]), ("pycocoevalcap", [other for _, (other, _) in rounds])):
        print(f"{name:14}{statistics.median(times):6.2f} s for {len(predictions)} images")
    print(f"patchword takes {statistics.median(own / other for (own, _), (other, _) in rounds):.2f} of it")


main()
