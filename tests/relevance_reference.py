"""Maps over the image by an independent implementation, for tests/it/relevance.rs.

    apt-get install python3-torch && /usr/bin/python3 tests/relevance_reference.py tests/fixtures/relevance

(or `pip install torch --index-url https://download.pytorch.org/whl/cpu`; PyTorch 1.13 made the files that are
there). Draws three tiny captioners (shaped as ours, BLIP and ViT-GPT2), writes each as a checkpoint folder of
ours and, beside it, what every method says of one caption: expected.json. Computes in float64. Shares no code
with the program; gradients are taken at the attention weights themselves, without gates.
"""
import json
import math
import struct
import sys
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)

HEIGHT, WIDTH, SIDE = 8, 12, 4
VOCAB = ["<pad>", "<bos>", "<eos>", "<unk>", "red", "dog", "##s", "run", "on", "grass", "two", "cat"]
CAPTION = "red dogs run"
TOKENS = ["<bos>", "red", "dog", "##s", "run", "<eos>"]
# Positions of each word's tokens.
WORDS = [range(1, 2), range(2, 4), range(4, 5)]

ENCODER = {"image_height": HEIGHT, "image_width": WIDTH, "patch_size": SIDE, "d_model": 12, "num_layers": 2,
           "num_heads": 3, "d_ff": 16, "prefix_tokens": 1, "positions": "learned", "dropout": 0.1}
DECODER = {"vocab_size": len(VOCAB), "max_positions": 10, "d_model": 8, "num_layers": 2, "num_heads": 2,
           "d_ff": 16, "dropout": 0.3}
MODELS = {
    "ours": (dict(ENCODER, prefix_tokens=0), DECODER),
    "blip": (ENCODER, dict(DECODER, norm="post", embedding_norm=True, final_norm=False, layer_norm_epsilon=1e-12,
                           head="transform_tied", head_bias=True)),
    "vit-gpt2": (ENCODER, dict(DECODER, activation="gelu_tanh", layer_norm_epsilon=1e-5, memory_projection=True)),
}


# A model: its weights by their names in a checkpoint of ours, linear maps as [inputs, outputs].
class Model:
    def __init__(self, encoder, decoder, seed):
        self.encoder, self.decoder, self.weights = encoder, decoder, {}
        torch.manual_seed(seed)
        width, narrow = encoder["d_model"], decoder["d_model"]
        prefix = encoder["prefix_tokens"]
        patches = HEIGHT // SIDE * (WIDTH // SIDE)
        self.linear("encoder.patch_embedding", 3 * SIDE * SIDE, width)
        if prefix:
            self.draw("encoder.prefix_tokens", prefix, width)
        self.draw("encoder.position_embedding", prefix + patches, width)
        for layer in range(encoder["num_layers"]):
            name = f"encoder.layers.{layer}"
            self.norm(f"{name}.attention_norm", width)
            self.attention(f"{name}.attention", width, width)
            self.norm(f"{name}.feed_forward_norm", width)
            self.feed_forward(f"{name}.feed_forward", width, encoder["d_ff"])
        self.norm("encoder.final_norm", width)
        if decoder.get("memory_projection"):
            self.linear("memory_projection", width, narrow)
            width = narrow
        self.draw("decoder.token_embedding", len(VOCAB), narrow)
        self.draw("decoder.position_embedding", decoder["max_positions"], narrow)
        if decoder.get("embedding_norm"):
            self.norm("decoder.embedding_norm", narrow)
        for layer in range(decoder["num_layers"]):
            name = f"decoder.layers.{layer}"
            for kind, memory in [("self_attention", narrow), ("cross_attention", width)]:
                self.norm(f"{name}.{kind}_norm", narrow)
                self.attention(f"{name}.{kind}", narrow, memory)
            self.norm(f"{name}.feed_forward_norm", narrow)
            self.feed_forward(f"{name}.feed_forward", narrow, decoder["d_ff"])
        if decoder.get("final_norm", True):
            self.norm("decoder.final_norm", narrow)
        if decoder.get("head") == "transform_tied":
            self.linear("decoder.head.transform", narrow, narrow)
            self.norm("decoder.head.transform_norm", narrow)
        if decoder.get("head_bias"):
            self.draw("decoder.head.bias", len(VOCAB))

    def draw(self, name, *shape):
        # What f32 holds, so that both sides compute with the same numbers.
        self.weights[name] = ((torch.rand(*shape) * 2 - 1) * 0.6).float().double()

    def linear(self, name, inputs, outputs):
        self.draw(f"{name}.weight", inputs, outputs)
        self.draw(f"{name}.bias", outputs)

    def norm(self, name, width):
        self.weights[f"{name}.gamma"] = (1 + (torch.rand(width) * 2 - 1) * 0.3).float().double()
        self.draw(f"{name}.beta", width)

    def attention(self, name, width, memory):
        self.linear(f"{name}.query", width, width)
        self.linear(f"{name}.key_value", memory, 2 * width)
        self.linear(f"{name}.output", width, width)

    def feed_forward(self, name, width, hidden):
        self.linear(f"{name}.hidden", width, hidden)
        self.linear(f"{name}.output", hidden, width)

    def apply(self, name, x):
        return x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def normalize(self, name, x, epsilon):
        gamma, beta = self.weights[f"{name}.gamma"], self.weights[f"{name}.beta"]
        return torch.nn.functional.layer_norm(x, x.shape[-1:], gamma, beta, epsilon)

    def attend(self, name, heads, x, memory, causal):
        """What comes out, and the weights [heads, queries, keys]."""
        split = lambda y: y.view(y.shape[0], heads, -1).transpose(0, 1)
        query = split(self.apply(f"{name}.query", x))
        key, value = (split(y) for y in self.apply(f"{name}.key_value", memory).chunk(2, dim=-1))
        scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
        if causal:
            hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, -math.inf)
        weights = scores.softmax(-1)
        if not weights.requires_grad:
            weights.requires_grad_(True)
        context = (weights @ value).transpose(0, 1).reshape(x.shape[0], -1)
        return self.apply(f"{name}.output", context), weights

    def feed(self, name, x, activation):
        hidden = self.apply(f"{name}.hidden", x)
        return self.apply(f"{name}.output", activate(hidden, activation))

    def encode(self, pixels):
        """Memory [positions, width], and the weights of each layer."""
        config, epsilon, seen = self.encoder, 1e-6, []
        grid = pixels.view(3, HEIGHT // SIDE, SIDE, WIDTH // SIDE, SIDE)
        x = self.apply("encoder.patch_embedding", grid.permute(1, 3, 0, 2, 4).reshape(-1, 3 * SIDE * SIDE))
        if config["prefix_tokens"]:
            x = torch.cat([self.weights["encoder.prefix_tokens"], x])
        x = x + self.weights["encoder.position_embedding"]
        for layer in range(config["num_layers"]):
            name = f"encoder.layers.{layer}"
            normed = self.normalize(f"{name}.attention_norm", x, epsilon)
            out, weights = self.attend(f"{name}.attention", config["num_heads"], normed, normed, False)
            seen.append(weights)
            x = x + out
            x = x + self.feed(f"{name}.feed_forward", self.normalize(f"{name}.feed_forward_norm", x, epsilon), "gelu")
        x = self.normalize("encoder.final_norm", x, epsilon)
        if self.decoder.get("memory_projection"):
            x = self.apply("memory_projection", x)
        return x, seen

    def decode(self, ids, memory):
        """Log-probabilities [seq, vocab], and the weights of each layer: of itself, of memory."""
        config = self.decoder
        epsilon, activation = config.get("layer_norm_epsilon", 1e-6), config.get("activation", "gelu")
        own, cross = [], []
        x = self.weights["decoder.token_embedding"][ids] + self.weights["decoder.position_embedding"][:len(ids)]
        if config.get("embedding_norm"):
            x = self.normalize("decoder.embedding_norm", x, epsilon)
        for layer in range(config["num_layers"]):
            name = f"decoder.layers.{layer}"

            def branch(kind, run, x):
                if config.get("norm", "pre") == "post":
                    return self.normalize(f"{name}.{kind}_norm", x + run(x), epsilon)
                return x + run(self.normalize(f"{name}.{kind}_norm", x, epsilon))

            def attention(kind, memory, causal, seen):
                def run(x):
                    read = x if memory is None else memory
                    out, weights = self.attend(f"{name}.{kind}", config["num_heads"], x, read, causal)
                    seen.append(weights)
                    return out
                return run

            x = branch("self_attention", attention("self_attention", None, True, own), x)
            x = branch("cross_attention", attention("cross_attention", memory, False, cross), x)
            x = branch("feed_forward", lambda x: self.feed(f"{name}.feed_forward", x, activation), x)
        if config.get("final_norm", True):
            x = self.normalize("decoder.final_norm", x, epsilon)
        if config.get("head") == "transform_tied":
            x = activate(self.apply("decoder.head.transform", x), activation)
            x = self.normalize("decoder.head.transform_norm", x, epsilon)
        logits = x @ self.weights["decoder.token_embedding"].T
        if config.get("head_bias"):
            logits = logits + self.weights["decoder.head.bias"]
        return logits.log_softmax(-1), own, cross


def activate(x, kind):
    if kind == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def photo():
    x, y = torch.arange(WIDTH), torch.arange(HEIGHT)[:, None]
    planes = [(x * 37 + y * 59 + channel * 83 + x * y * 13) % 256 for channel in range(3)]
    return torch.stack(planes).double()


# The methods. Each gives [steps, keys] for a word, of which the word's steps are averaged.

def handled(relevance):
    """Equations 8 and 9 of Chefer et al. 2021: what was added to the identity, its rows with sum 1."""
    identity = torch.eye(relevance.shape[0])
    added = relevance - identity
    sums = added.sum(-1, keepdim=True)
    return torch.where(sums > 0, added / torch.where(sums > 0, sums, torch.ones_like(sums)), added) + identity


def positive(weights, gradient):
    """Equation 5."""
    return (gradient * weights).clamp(min=0).mean(0)


def chefer(own, cross, encoder):
    """Their rules for encoder and decoder; lists of (weights, gradients), first layer first."""
    keys = cross[0][0].shape[-1]
    images = torch.eye(keys)
    for weights, gradient in encoder:
        images = images + positive(weights, gradient) @ images
    images = handled(images)
    seq = own[0][0].shape[-1]
    text, both = torch.eye(seq), torch.zeros(seq, keys)
    for (own_weights, own_gradient), (cross_weights, cross_gradient) in zip(own, cross):
        cam = positive(own_weights, own_gradient)
        text, both = text + cam @ text, both + cam @ both
        both = both + handled(text).T @ positive(cross_weights, cross_gradient) @ images
    return both


def grad_cam(cross):
    return sum((gradient.mean(-1, keepdim=True) * weights).sum(0).clamp(min=0) for weights, gradient in cross) / len(cross)


def rollout(own, cross, encoder):
    keys = cross[0].shape[-1]
    images = torch.eye(keys)
    for weights in encoder:
        images = (weights.mean(0) + torch.eye(keys)) / 2 @ images
    seq = own[0].shape[-1]
    reached = torch.zeros(seq, keys)
    for own_weights, cross_weights in zip(own, cross):
        reached = (own_weights.mean(0) + torch.eye(seq)) / 2 @ reached
        reached = (reached + cross_weights.mean(0) @ images) / 2
    return reached


def residual(own, cross):
    attention = torch.stack([weights.mean(0) for weights in cross]).mean(0)
    to_words = torch.stack([weights.mean(0) for weights in own]).mean(0)
    rows = []
    for step in range(attention.shape[0]):
        explained = sum((to_words[step, earlier] * attention[earlier] for earlier in range(1, step)),
                        torch.zeros(attention.shape[1]))
        size = explained @ explained
        scale = (attention[step] @ explained / size).clamp(min=0) if size > 0 else 0
        rows.append(attention[step] - scale * explained)
    return torch.stack(rows)


def maps_of(model):
    ids = [VOCAB.index(token) for token in TOKENS]
    pixels = (photo() / 255 - 0.5) / 0.5
    memory, encoder = model.encode(pixels)
    seq = len(ids) - 1
    log_probabilities, own, cross = model.decode(ids[:-1], memory)
    chosen = torch.stack([log_probabilities[step, ids[step + 1]] for step in range(seq)])
    found = []
    for position, shift in [("predicting", 1), ("reading", 0)]:
        steps = [[at - shift for at in word] for word in WORDS]
        targets = [sum(chosen[step] for step in word) for word in steps]
        encoder_gradients = torch.autograd.grad(sum(targets), encoder, retain_graph=True)
        by_method = {name: [] for name in
                     ["attention", "rollout", "gradient", "decoder-gradient", "grad-cam", "residual"]}
        for target, word in zip(targets, steps):
            gradients = torch.autograd.grad(target, own + cross, retain_graph=True, allow_unused=True)
            gradients = [torch.zeros_like(weights) if gradient is None else gradient
                         for weights, gradient in zip(own + cross, gradients)]
            own_pairs = list(zip(own, gradients[:len(own)]))
            cross_pairs = list(zip(cross, gradients[len(own):]))
            of_word = {
                "attention": torch.stack([weights.mean(0) for weights in cross]).mean(0),
                "rollout": rollout(own, cross, encoder),
                "gradient": chefer(own_pairs, cross_pairs, list(zip(encoder, encoder_gradients))),
                "decoder-gradient": chefer(own_pairs, cross_pairs, []),
                "grad-cam": grad_cam(cross_pairs),
                "residual": residual(own, cross),
            }
            for name, rows in of_word.items():
                values = rows[word].mean(0)
                by_method[name].append((values / values.abs().sum()).tolist())
        found += [{"method": name, "position": position, "words": words} for name, words in by_method.items()]
    return {"caption": CAPTION, "log_probabilities": chosen.tolist(), "maps": found}


def write_safetensors(path, tensors):
    header, data = {"__metadata__": {"format": "patchword"}}, b""
    for name, tensor in sorted(tensors.items()):
        values = tensor.flatten().tolist()
        start = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return {key: rounded(one) for key, one in value.items()} if isinstance(value, dict) else value


def main(root):
    special = [{"id": at, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for at, token in enumerate(VOCAB[:4])]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
        "model": {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {token: at for at, token in enumerate(VOCAB)}},
    }
    preprocessor = {"height": HEIGHT, "width": WIDTH, "resize": "squash", "filter": "bilinear",
                    "mean": [0.5] * 3, "std": [0.5] * 3}
    for seed, (name, (encoder, decoder)) in enumerate(MODELS.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        model = Model(encoder, decoder, seed)
        config = {"format": "patchword", "version": 1, "model": {"encoder": encoder, "decoder": decoder},
                  "generate": {"max_new_tokens": 8}, "special_tokens": {"bos": 1, "eos": 2, "pad": 0}}
        for file, value in [("config", config), ("tokenizer", tokenizer), ("preprocessor", preprocessor),
                            ("expected", rounded(maps_of(model)))]:
            (folder / f"{file}.json").write_text(json.dumps(value) + "\n")
        write_safetensors(folder / "model.safetensors", model.weights)


main(Path(sys.argv[1]))
