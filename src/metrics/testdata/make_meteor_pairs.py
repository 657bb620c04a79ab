"""Makes meteor_pairs.tsv: captions and references of our own beside what METEOR 1.5 makes of them.

    pip install pycocoevalcap==1.2; LC_ALL=C.UTF-8 python make_meteor_pairs.py > meteor_pairs.tsv

Needs Java. A line holds the caption, its references (between `|||`), METEOR with exact and stem matches
alone and the function words of ../meteor/mod.rs, and METEOR as pycocoevalcap runs it. The last line is of
all captions together.
"""

import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pycocoevalcap.meteor.meteor as meteor

SUBJECTS = "a man|the young boy|two little kids|a brown dog|several people|a group of women|an old lady|the child|a player|some guys".split("|")
VERBS = (
    "is playing|plays|plays an|is jumping over|jumps across|runs through|is running along|are standing in front of|sits next to|"
    "is sitting beside|looks at|is looking at|holds|carries|is wearing|throws|catches the|walks down"
).split("|")
OBJECTS = (
    "a guitar|an instrument|the ball|a large rock|the big stone|a street|the road|a car|an automobile|the water|a small boat|"
    "a red shirt|the grass|a field of flowers|a bicycle|his bike|a picture|the photograph|a number of toys|lots of toys"
).split("|")
PLACES = "in the park|on the beach|at night|near a lake|by the sea|in front of a house|in the middle of a street|outside|on top of a hill|while others watch|".split("|")
ODD = [
    ("", ["a dog"]),
    ("a dog", [""]),
    ("", [""]),
    ("a dog runs", ["a dog runs"]),
    ("a a a a a a", ["a a a", "the a the a"]),
    ("the the the man man man", ["the man the man the man"]),
    ("a dog , a cat and a dog 's ball", ["the dogs ' balls , a cat", "a dog 's cat"]),
    ("1,000 people at 5 p.m. in the u.s.", ["1,000 people at 5 pm in the us", "a 1 , 000"]),
    ("a t-shirt wearing , well-known man", ["a t shirt wearing well known man"]),
    ("it 's a café … the café 's naïve waiter", ["a cafe 's waiter", "the café is naïve"]),
    ("vs. them .. and pp. 5 or v. him", ["vs. them", "pp. 5 vs him ..."]),
    ("“ quoted ” and 'quoted' `` twice ''", ['" quoted " and \' quoted \'']),
    ("собака ё 犬 の 😀", ["ё собака", "犬 の 😀"]),
    ("do n't and don't", ["don 't", "do not"]),
    ("90's cars of the 1990s", ["90 's cars", "1990's"]),
]


def sentence(rng: random.Random) -> str:
    parts = [rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS), rng.choice(PLACES)]
    if rng.random() < 0.3:
        parts += ["and", rng.choice(VERBS), rng.choice(OBJECTS)]
    return " ".join(part for part in parts if part)


def pairs() -> list[tuple[str, list[str]]]:
    rng = random.Random(0)
    made = list(ODD)
    for kind in range(400):
        caption = sentence(rng)
        references = [sentence(rng) for _ in range(rng.randint(1, 2))]
        if kind % 4 == 1:
            # The same words in other order, with words of another.
            words = caption.split() + references[0].split()
            rng.shuffle(words)
            references[0] = " ".join(words[: rng.randint(3, len(words))])
        elif kind % 4 == 2:
            caption += " " + sentence(rng)
            references = [reference + " " + sentence(rng) for reference in references]
        made.append((caption, references))
    return made


class ExactAndStem(meteor.Meteor):
    def __init__(self, function_words: str):
        options = ["-m", "exact stem", "-w", "1.0 0.6", "-s", function_words]
        command = ["java", "-jar", "-Xmx2G", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm", *options]
        pipe = subprocess.PIPE
        self.meteor_p = subprocess.Popen(command, cwd=Path(meteor.__file__).parent, stdin=pipe, stdout=pipe, stderr=pipe)
        self.lock = meteor.threading.Lock()


def main() -> None:
    source = Path(__file__).parents[1].joinpath("meteor/mod.rs").read_text(encoding="utf-8")
    listed = re.search(r'FUNCTION_WORDS: &str = "(.*?)";', source, re.S).group(1)
    words = re.sub(r"\\(.)", r"\1", re.sub(r"\\\n\s*", "", listed)).split()
    rows = pairs()
    references = {place: row[1] for place, row in enumerate(rows)}
    captions = {place: [row[0]] for place, row in enumerate(rows)}
    with tempfile.NamedTemporaryFile("w", suffix=".words", encoding="utf-8") as file:
        file.write("\n".join(words) + "\n")
        file.flush()
        part, part_scores = ExactAndStem(file.name).compute_score(references, captions)
    full, full_scores = meteor.Meteor().compute_score(references, captions)
    for (caption, references), partial, whole in zip(rows, part_scores, full_scores):
        sys.stdout.write(f"{caption}\t{'|||'.join(references)}\t{partial}\t{whole}\n")
    sys.stdout.write(f"\t\t{part}\t{full}\n")


if __name__ == "__main__":
    main()
