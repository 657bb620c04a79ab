#!/usr/bin/env python3
"""Fine-tunes public models with patchword for 20 steps, exports them, has transformers load them, and compares logits.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors
    cargo build --release && cargo test --release --test it --no-run
    venv/bin/python tests/round_trip.py target/release/patchword MODEL_FOLDER...

MODEL_FOLDERs are Hugging Face folders of captioners. Run it in the root of the checkout.
"""
import os, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration, VisionEncoderDecoderModel

binary, models = os.path.abspath(sys.argv[1]), sys.argv[2:]
failed = False
with tempfile.TemporaryDirectory() as work:
    run = lambda *command, **env: subprocess.run(command, check=True, env={**os.environ, "PATCHWORD_DEVICE": "flex", **env})
    run(binary, "data", "shapes", f"{work}/shapes", "--images", "80", "--seed", "1")
    for model in models:
        name = os.path.basename(os.path.normpath(model))
        out, exported = f"{work}/{name}", f"{work}/{name}-exported"
        for lora in (False, True):
            config = f"{work}/tune.toml"
            with open(config, "w") as file:
                file.write(f'output = "{out}-{lora}"\ninit = "{os.path.abspath(model)}"\n' + ("lora = { rank = 4 }\n" if lora else "")
                           + f'[data]\npath = "{work}/shapes"\n[train]\nmax_steps = 20\nbatch_size = 4\nvalidate_every = 20\n'
                           + '[schedule]\nlearning_rate = 1e-4\nwarmup_steps = 2\n')
            run(binary, "-q", "train", config)
            run(binary, "model", "export", f"{out}-{lora}/last", f"{exported}-{lora}", "--to", "transformers")
            kind = AutoConfig.from_pretrained(f"{exported}-{lora}").model_type
            cls = BlipForConditionalGeneration if kind == "blip" else VisionEncoderDecoderModel
            theirs, info = cls.from_pretrained(f"{exported}-{lora}", output_loading_info=True)
            missing = [key for key in info["missing_keys"] if "pooler" not in key]
            assert not missing and not info["unexpected_keys"], (missing, info["unexpected_keys"])
            AutoTokenizer.from_pretrained(f"{exported}-{lora}"), AutoImageProcessor.from_pretrained(f"{exported}-{lora}")
            vision = theirs.config.vision_config if kind == "blip" else theirs.config.encoder
            vocab = (theirs.config.text_config if kind == "blip" else theirs.config.decoder).vocab_size
            torch.manual_seed(0)
            pixels, ids = torch.randn(2, 3, vision.image_size, vision.image_size), torch.randint(0, vocab, (2, 9))
            def logits_of(model, pixels):
                with torch.inference_mode():
                    if kind == "blip":
                        states = model.vision_model(pixel_values=pixels).last_hidden_state
                        return model.text_decoder(input_ids=ids, encoder_hidden_states=states).logits
                    return model(pixel_values=pixels, decoder_input_ids=ids).logits
            single = logits_of(theirs.eval(), pixels)
            exact = logits_of(theirs.double(), pixels.double())
            save_file({"pixel_values": pixels, "input_ids": ids.float()}, f"{work}/in.safetensors")
            run("cargo", "test", "-q", "--release", "--test", "export", "--", "--ignored", ROUND_TRIP_MODEL=f"{out}-{lora}/last",
                ROUND_TRIP_IN=f"{work}/in.safetensors", ROUND_TRIP_OUT=f"{work}/out.safetensors")
            ours = load_file(f"{work}/out.safetensors")["logits"]
            scale = exact.abs().max()
            apart, noise = [((logits - exact).abs().max() / scale).item() for logits in (ours, single)]
            print(f"{name}{' with LoRA' if lora else ''} ({kind}): {apart:.1e} of the largest logit from what transformers computes "
                  f"in 64 bits; transformers in 32 bits is {noise:.1e} from it")
            failed |= apart > max(1e-4, 3 * noise)
sys.exit(failed)
