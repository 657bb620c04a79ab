"""Makes ptb_pairs.tsv: nasty strings beside what pycocoevalcap's PTBTokenizer makes of them.

    pip install pycocoevalcap==1.2; LC_ALL=C.UTF-8 python make_ptb_pairs.py > ptb_pairs.tsv

Needs Java. The strings are in ptb_strings.txt, one a line; more of them are made here at random.
"""

import random
import sys
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

WORDS = (
    "a b dog The man U.S u.s A I cafe café Mr mr St etc Inc no No e.g i.e p.m 5 10 1,000 3.5 1/2 90s 2nd 50mph 10am "
    "x-ray t-shirt T.V it is can don he n s re ve ll d m gonna cannot lemme Co Corp Jan Dr vs www.x.com x.com a@b.com "
    "http://a.b/c R B AT T rock n roll o clock y all ma am O Neil el photo.jpg #tag @name US$ C# 'em 'tis"
).split()
MARKS = "' \" . , ! ? ; : - -- ... / & ( ) [ ] < > # $ % @ * + = _ ’ “ ” ‘ ` é ½ € £ … – — ~ \\ { } &amp; 😀 ☺ 's n't ’s".split()


def main() -> None:
    strings = Path(__file__).with_name("ptb_strings.txt").read_text(encoding="utf-8").splitlines()
    rng = random.Random(0)
    for _ in range(1000):
        parts = []
        for _ in range(rng.randint(2, 6)):
            parts.append(rng.choice(WORDS))
            parts.append(rng.choice([" ", " ", "", rng.choice(MARKS), rng.choice(MARKS) + " ", " " + rng.choice(MARKS) + " "]))
        strings.append("".join(parts).strip())
    # The tokenizer looks ahead over the end of a line, so a plain word begins each.
    captions = {i: [{"caption": "zq " + string}] for i, string in enumerate(strings)}
    tokenized = PTBTokenizer().tokenize(captions)
    for i, string in enumerate(strings):
        tokens = tokenized[i][0].removeprefix("zq").removeprefix(" ")
        sys.stdout.write(f"{string}\t{tokens}\n")


if __name__ == "__main__":
    main()
