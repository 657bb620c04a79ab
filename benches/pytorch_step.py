#!/usr/bin/env python3
"""Seconds of a training step of PyTorch with the model and the batch of configs/bench.toml, on a GPU if there is one.

    python benches/pytorch_step.py [--small] [--steps 20]

ViT of 6 layers and decoder of 4, width 384, 6 heads, feed-forward 1536, patches of 16 of 224 × 224 pixels, vocabulary 8000, 8 images with a
caption of 24 tokens each, AdamW, f32: layers as torch.nn has them. Random numbers, as `patchword bench train` has.
"""
import argparse, statistics, time

import torch
from torch import nn


class Captioner(nn.Module):
    def __init__(self, side, layers, width=384, heads=6, hidden=1536, vocab=8000, positions=64):
        super().__init__()
        of = dict(d_model=width, nhead=heads, dim_feedforward=hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.places = nn.Parameter(torch.randn(1, (side // 16) ** 2, width) * 0.02)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**of), layers[0], enable_nested_tensor=False)
        self.words = nn.Embedding(vocab, width)
        self.order = nn.Parameter(torch.randn(1, positions, width) * 0.02)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**of), layers[1])
        self.head = nn.Linear(width, vocab)

    def forward(self, pixels, ids):
        memory = self.encoder(self.patches(pixels).flatten(2).transpose(1, 2) + self.places)
        words = self.words(ids) + self.order[:, : ids.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        return self.head(self.decoder(words, memory, tgt_mask=mask, tgt_is_causal=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    side, batch, layers, steps = (32, 1, (1, 1), 2) if arguments.small else (224, 8, (6, 4), arguments.steps)
    torch.manual_seed(0)
    model = Captioner(side, layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pixels, ids = torch.randn(batch, 3, side, side, device=device), torch.randint(8000, (batch, 25), device=device)
    seconds = []
    for _ in range(steps + 2):
        start = time.time()
        loss = nn.functional.cross_entropy(model(pixels, ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.time() - start)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__}, {name}: {statistics.median(seconds[2:]):.3f} s a training step, loss {loss.item():.2f}")


if __name__ == "__main__":
    main()
