#!/usr/bin/env python3
"""Trains low-rank adapters of public models with patchword, kept apart, and has peft load them: logits are compared.

    python3 -m venv venv && venv/bin/pip install torch transformers peft safetensors
    cargo build --release && cargo test --release --test it --no-run
    venv/bin/python tests/peft_round_trip.py target/release/patchword MODEL_FOLDER...

MODEL_FOLDERs are Hugging Face folders of captioners. Run it in the root of the checkout. The other way, peft's adapters in
patchword, is a test of its own (tests/fixtures/make_adapters.py).
"""
import os, subprocess, sys, tempfile
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BlipForConditionalGeneration, VisionEncoderDecoderModel

binary, models = os.path.abspath(sys.argv[1]), sys.argv[2:]
failed = False
with tempfile.TemporaryDirectory() as work:
    run = lambda *command, **env: subprocess.run(command, check=True, env={**os.environ, "PATCHWORD_DEVICE": "flex", **env})
    run(binary, "data", "shapes", f"{work}/shapes", "--images", "80", "--seed", "1")
    for model in models:
        name, out = os.path.basename(os.path.normpath(model)), f"{work}/{os.path.basename(os.path.normpath(model))}"
        with open(f"{work}/tune.toml", "w") as file:
            file.write(f'output = "{out}"\ninit = "{os.path.abspath(model)}"\nlora = {{ rank = 4, merge = false, targets = ["*query*", "*key_value*", "*feed_forward*"] }}\n'
                       f'[data]\npath = "{work}/shapes"\n[train]\nmax_steps = 20\nbatch_size = 4\nvalidate_every = 20\n[schedule]\nlearning_rate = 1e-2\nwarmup_steps = 2\n')
        run(binary, "-q", "train", f"{work}/tune.toml")
        kind = AutoConfig.from_pretrained(model).model_type
        cls = BlipForConditionalGeneration if kind == "blip" else VisionEncoderDecoderModel
        plain = cls.from_pretrained(model).eval()
        vision = plain.config.vision_config if kind == "blip" else plain.config.encoder
        vocab = (plain.config.text_config if kind == "blip" else plain.config.decoder).vocab_size
        torch.manual_seed(0)
        pixels, ids = torch.randn(2, 3, vision.image_size, vision.image_size), torch.randint(0, vocab, (2, 9))
        def logits_of(model):
            with torch.inference_mode():
                if kind == "blip":
                    return model.text_decoder(input_ids=ids, encoder_hidden_states=model.vision_model(pixel_values=pixels).last_hidden_state).logits
                return model(pixel_values=pixels, decoder_input_ids=ids).logits
        before = logits_of(plain)
        adapted = logits_of(PeftModel.from_pretrained(plain, f"{out}/last").eval().merge_and_unload())
        save_file({"pixel_values": pixels, "input_ids": ids.float()}, f"{work}/in.safetensors")
        run("cargo", "test", "-q", "--release", "--test", "it", "--", "--ignored", "logits_for_round_trip", ROUND_TRIP_MODEL=f"{out}/last",
            ROUND_TRIP_IN=f"{work}/in.safetensors", ROUND_TRIP_OUT=f"{work}/out.safetensors")
        ours = load_file(f"{work}/out.safetensors")["logits"]
        scale = adapted.abs().max()
        apart, moved = [((adapted - other).abs().max() / scale).item() for other in (ours, before)]
        print(f"{name} ({kind}): {apart:.1e} of the largest logit from what peft makes of the adapter, which moves it by {moved:.1e}")
        failed |= apart > 1e-3 or moved < 10 * apart
sys.exit(failed)
