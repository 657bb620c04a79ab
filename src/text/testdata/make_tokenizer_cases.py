"""Token ids that transformers gives to awkward captions, and the small vocabularies of this folder.

    python3 -m pip install transformers==5.23.0 tokenizers==0.23.3
    python3 make_tokenizer_cases.py SHARED_TOKENIZERS

SHARED_TOKENIZERS holds `bert-uncased/tokenizer.json` and GPT-2's `encoder.json` and `vocab.bpe`, whose vocabularies are too
large for this folder. Writes vocab.txt, vocab.json, merges.txt and tokenizer_cases.json, and says where the slow, pure Python
tokenizer of BERT that transformers still has gives other ids.
"""
import json, os, sys, tempfile
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, normalizers, trainers
from transformers import BertTokenizer, GPT2Tokenizer, RobertaTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

CAPTIONS = [
    "A small red circle above a large blue square.",
    "two dogs aren't running across the green grass, they're sleeping!",
    "  leading, trailing and   many spaces  ",
    "tabs\tand\nnew\r\nlines\u00a0and\u3000other\u2009blanks",
    "",
    " ",
    "café naïve Ångström Zürich ÉTÉ İstanbul ǅ ﬁ ß",
    "cafe\u0301 nai\u0308ve",
    "草の上で犬が走っている。一只狗在跑 한국어",
    "घास पर एक लाल गेंद",
    "a dog 🐕 with a ball ⚽ and a family 👨‍👩‍👧 🏽",
    "control \x00 \x01 \x7f \ufffd \u200b zero\u200dwidth \ufeff",
    "$5.99 (50% off) #1 C++ a/b e-mail@x.org x_y ~ ` ^ « » – — … “quoted” ‘single’",
    "antidisestablishmentarianism " + "x" * 99 + " " + "y" * 101,
    "[CLS] [SEP] [DEC] [MASK] <s> </s> <mask> <|endoftext|> are text",
    "I'LL we'Ve it'S can't 'tis rock'n'roll",
    "1234567890 3.14159 ½ ² Ⅷ 12:30pm",
]


def ids(tokenizer):
    return [tokenizer(caption, add_special_tokens=False, split_special_tokens=True).input_ids for caption in CAPTIONS]


def texts(tokenizer, cases):
    return [tokenizer.decode(case, skip_special_tokens=True, clean_up_tokenization_spaces=False) for case in cases]


def write_vocab(path, vocab):
    tokens = sorted(vocab, key=vocab.get)
    open(path, "w", encoding="utf-8").write("".join(token + "\n" for token in tokens))


def small():
    words = [caption.lower() for caption in CAPTIONS[:3]] * 3
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tok.train_from_iterator(words + ["café 犬"], trainers.WordPieceTrainer(vocab_size=160, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    write_vocab("vocab.txt", tok.get_vocab())
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.train_from_iterator(words, trainers.BpeTrainer(vocab_size=340, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = tok.model.save(folder)
        vocab = json.load(open(vocab, encoding="utf-8"))
        json.dump(vocab, open("vocab.json", "w", encoding="utf-8"), ensure_ascii=False)
        open("merges.txt", "w", encoding="utf-8").write(open(merges, encoding="utf-8").read())


def main():
    shared = sys.argv[1]
    small()
    cases = {"made_by": f"transformers {transformers.__version__}", "captions": CAPTIONS}
    with tempfile.TemporaryDirectory() as folder:
        vocab = json.load(open(f"{shared}/bert-uncased/tokenizer.json"))["model"]["vocab"]
        write_vocab(f"{folder}/vocab.txt", vocab)
        ways = {"uncased": {}, "cased": dict(do_lower_case=False), "accents": dict(strip_accents=False), "cased_bare": dict(do_lower_case=False, strip_accents=True),
                "no_chinese": dict(tokenize_chinese_chars=False)}
        for size, path in [("bert", f"{folder}/vocab.txt"), ("small_bert", "vocab.txt")]:
            for name, way in ways.items():
                os.makedirs(f"{folder}/{size}-{name}")
                open(f"{folder}/{size}-{name}/vocab.txt", "w").write(open(path).read())
                tokenizer = BertTokenizer.from_pretrained(f"{folder}/{size}-{name}", **way)
                cases[f"{size}_{name}"] = ids(tokenizer)
                slow = BertTokenizerLegacy(path, **way)
                for caption, fast in zip(CAPTIONS, cases[f"{size}_{name}"]):
                    other = slow.convert_tokens_to_ids(slow.basic_tokenizer.tokenize(caption) and [piece for word in slow.basic_tokenizer.tokenize(caption) for piece in slow.wordpiece_tokenizer.tokenize(word)])
                    if other != fast: print(f"slow {size} {name} differs on {caption!r}")
            if size == "small_bert": cases["small_bert_text"] = texts(tokenizer, cases["small_bert_uncased"])
        os.makedirs(f"{folder}/gpt2"); os.makedirs(f"{folder}/roberta")
        for there, here in [("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")]:
            open(f"{folder}/gpt2/{here}", "w").write(open(f"{shared}/gpt2/{there}").read())
            open(f"{folder}/roberta/{here}", "w").write(open(here).read())
        for name, space in [("", False), ("_space", True)]:
            cases[f"gpt2{name}"] = ids(GPT2Tokenizer.from_pretrained(f"{folder}/gpt2", add_prefix_space=space))
            tokenizer = RobertaTokenizer.from_pretrained(f"{folder}/roberta", add_prefix_space=space)
            cases[f"small_roberta{name}"] = ids(tokenizer)
        cases["small_roberta_text"] = texts(tokenizer, cases["small_roberta"])
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=True, separators=(',', ':'))}" for key, value in cases.items())
    open("tokenizer_cases.json", "w").write("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
