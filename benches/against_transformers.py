#!/usr/bin/env python3
"""Captions with a BLIP-base of random weights, by patchword and by transformers, in turn on this machine's CPU.

    python benches/against_transformers.py make DIR                    writes the model, 0.9 GB
    python benches/against_transformers.py run DIR PHOTOS [ROUNDS]     PHOTOS: a folder with at least 4 photos; 5 rounds

Needs torch, transformers, pillow, and patchword on the PATH (or PATCHWORD=path). 384 × 384 pixels, 20 tokens a caption for both (no caption
may end before), f32, as many threads as there are cores. Seconds an image hold reading, preprocessing, encoding and decoding, not loading. In
each round each program takes every mode once; medians over the rounds, and the median of the rounds' ratios.
"""
import json, os, resource, statistics, subprocess, sys, time

MODES = ((1, 1), (1, 3), (4, 1))
TOKENS = 20


def make(folder):
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BertTokenizerFast
    torch.manual_seed(0)
    config = BlipConfig()
    config.text_config.encoder_hidden_size = config.vision_config.hidden_size
    config.text_config.num_attention_heads = 12
    config.vision_config.image_size = 384
    BlipForConditionalGeneration(config).eval().save_pretrained(folder)
    BlipImageProcessor(size={"height": 384, "width": 384}).save_pretrained(folder)
    words = ["[PAD]"] + [f"word{i}" for i in range(1, config.text_config.vocab_size - 4)]
    words += ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    with open(os.path.join(folder, "vocab.txt"), "w") as file:
        file.write("\n".join(words))
    BertTokenizerFast(os.path.join(folder, "vocab.txt")).save_pretrained(folder)


def theirs(folder, photos):
    """One round of transformers, in a process of its own; the first caption counts from the process's start."""
    start = float(os.environ["STARTED"])
    import torch
    from PIL import Image
    from transformers import BlipForConditionalGeneration, BlipImageProcessor
    model, processor = BlipForConditionalGeneration.from_pretrained(folder).eval(), BlipImageProcessor.from_pretrained(folder)

    def caption(paths, beams):
        pixels = processor(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt").pixel_values
        with torch.inference_mode():
            model.generate(pixel_values=pixels, min_length=TOKENS, max_length=TOKENS, num_beams=beams, do_sample=False)

    caption(photos[:1], 1)
    out = {"first": time.time() - start}
    for batch, beams in MODES:
        begin = time.time()
        for at in range(0, 4, batch):
            caption(photos[at:at + batch], beams)
        out[f"{batch},{beams}"] = (time.time() - begin) / 4
    out["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(out))


def ours(program, folder, photos):
    start = time.time()
    command = [program, "caption", photos[0], "--model", folder, "--device", "flex", "--num-beams", "1", "--quiet"]
    subprocess.run(command + [f"--min-new-tokens={TOKENS - 1}", f"--max-new-tokens={TOKENS - 1}"], check=True, stdout=subprocess.DEVNULL)
    out = {"first": time.time() - start, "peak": 0.0}
    for batch, beams in MODES:
        command = [program, "bench", "caption", "--model", folder, "--device", "flex", "--json", "--images", str(max(4, batch))]
        command += ["--batch-size", str(batch), "--num-beams", str(beams), "--new-tokens", str(TOKENS)]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
        out[f"{batch},{beams}"] = 1 / report["images_per_second"]
        out["peak"] = max(out["peak"], report["peak_memory_bytes"] / 1.024e9)
    return out


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown CPU")


def run(folder, photos, rounds):
    program = os.environ.get("PATCHWORD", "patchword")
    names = sorted(name for name in os.listdir(photos) if name.lower().endswith((".jpg", ".jpeg", ".png")))[:4]
    photos = [os.path.join(photos, name) for name in names]
    us, them = [], []
    for index in range(rounds):
        us.append(ours(program, folder, photos))
        environment = dict(os.environ, STARTED=str(time.time()))
        command = [sys.executable, os.path.abspath(__file__), "theirs", folder] + photos
        them.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment).stdout))
        print(f"round {index + 1} of {rounds}: ours {us[-1]}, theirs {them[-1]}", file=sys.stderr)
    print(f"{cpu()}, {os.cpu_count()} cores; medians of {rounds} rounds\n")
    print("| | patchword | transformers | ratio |\n|---|---|---|---|")
    names = [(f"{batch},{beams}", f"batch {batch}, {'greedy' if beams == 1 else f'{beams} beams'}: seconds an image") for batch, beams in MODES]
    for key, name in names + [("first", "process start to first caption, seconds"), ("peak", "peak memory, GB")]:
        a, b = [one[key] for one in us], [one[key] for one in them]
        ratio = statistics.median(x / y for x, y in zip(a, b))
        print(f"| {name} | {statistics.median(a):.2f} | {statistics.median(b):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if sys.argv[1] == "make":
        make(sys.argv[2])
    elif sys.argv[1] == "theirs":
        theirs(sys.argv[2], sys.argv[3:])
    else:
        run(sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 5)
