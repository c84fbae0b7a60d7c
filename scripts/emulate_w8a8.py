#!/usr/bin/env python3
"""What quality int8 weights and activations can reach on a model, emulated in fp32 by transformers.

usage: emulate_w8a8.py MODEL.gguf TEXT [--chunks N] [--cases plain,clip,...] [--json OUT]

The protocol is that of docs/quality.md. Quantized are all linear layers and the LM head (not the embedding
table); attention and the KV cache stay fp32. Needs what gguf_oracle.py needs.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

import gguf_oracle
import quality


def round_rows(x, scale):
    """Symmetric int8 with `scale` [..., 1], rounded half to even."""
    scale = scale.clamp_min(1e-30)
    return (x / scale).round().clamp(-127, 127) * scale


def w_max(w):
    return round_rows(w, w.abs().amax(-1, keepdim=True) / 127)


def w_clip(w):
    """The scale of least squared error per output channel, of 25 between 70 % and 100 % of max/127."""
    top = w.abs().amax(-1, keepdim=True) / 127
    best, least = w_max(w), None
    least = (best - w).square().sum(-1, keepdim=True)
    for fraction in np.linspace(0.70, 0.99, 25):
        q = round_rows(w, top * float(fraction))
        error = (q - w).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, q, best), torch.minimum(error, least)
    return best


def a_max(x, group=None):
    y = x.unflatten(-1, (-1, group)) if group else x
    return round_rows(y, y.abs().amax(-1, keepdim=True) / 127).reshape(x.shape)


def a_clip(x):
    """The best of max and nine clips by squared error, per token: an upper bound for cheap clipping."""
    top = x.abs().amax(-1, keepdim=True) / 127
    best = a_max(x)
    least = (best - x).square().sum(-1, keepdim=True)
    for fraction in np.linspace(0.5, 0.95, 9):
        q = round_rows(x, top * float(fraction))
        error = (q - x).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, q, best), torch.minimum(error, least)
    return best



def everywhere(quantize):
    return lambda name, x: quantize(x)


def but(part, quantize, instead=None):
    return lambda name, x: (instead(x) if instead else x) if part in name else quantize(x)


CASES = {  # name: (what it is, weights, activations of layer `name`)
    "plain": ("W8 per channel, A8 per token", w_max, everywhere(a_max)),
    "weights": ("W8 per channel, activations fp32", w_max, None),
    "clip": ("W8 per channel, least-squares scale, A8 per token", w_clip, everywhere(a_max)),
    "aclip": ("W8 per channel, A8 per token, least-squares scale", w_max, everywhere(a_clip)),
    "down-fp32": ("plain, but the input of down_proj fp32", w_max, but("down_proj", a_max)),
    "down-g64": ("plain, but the input of down_proj by groups of 64", w_max,
                 but("down_proj", a_max, lambda x: a_max(x, 64))),
    "head-fp32": ("plain, but the input of the LM head fp32", w_max, but("lm_head", a_max)),
    "g64": ("W8 per channel, A8 per group of 64", w_max, everywhere(lambda x: a_max(x, 64))),
}


def linear_layers(net):
    """All of them by name; the LM head gets its own weights where it was tied."""
    net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach().clone(), requires_grad=False)
    return {n: m for n, m in net.named_modules() if isinstance(m, torch.nn.Linear)}


def install(layers, weights, activations):
    """Puts quantized weights in and hooks on inputs; returns the hooks."""
    hooks = []
    for name, layer in layers.items():
        layer.weight.data = weights[name]
        if activations:
            hook = lambda module, inputs, name=name: (activations(name, inputs[0]),)
            hooks.append(layer.register_forward_pre_hook(hook))
    return hooks


def run(oracle, ids, n_chunks, names):
    layers = linear_layers(oracle.net)
    original = {n: m.weight.data for n, m in layers.items()}
    makers = {CASES[n][1] for n in names}
    weights = {make: {n: make(w) for n, w in original.items()} for make in makers}
    figures = {n: quality.Figures() for n in ["fp32", *names]}
    window = quality.scored()
    for c in range(n_chunks):
        chunk = ids[c * quality.CHUNK:(c + 1) * quality.CHUNK]
        targets = np.array(chunk[window.start + 1:])
        install(layers, original, None)
        reference = quality.log_softmax(oracle.logits(chunk)[window])
        figures["fp32"].add(reference, targets)
        for name in names:
            hooks = install(layers, weights[CASES[name][1]], CASES[name][2])
            figures[name].add(quality.log_softmax(oracle.logits(chunk)[window]), targets, reference)
            for hook in hooks:
                hook.remove()
        print(f"chunk {c + 1} of {n_chunks}: " + "  ".join(
            f"{n} ppl {f.perplexity:.3f} KL {f.kl_mean:.4f}" for n, f in figures.items()), file=sys.stderr)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--chunks", type=int, help="at most this many; default: all of the text")
    parser.add_argument("--cases", default="plain", help=", ".join(CASES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    oracle = gguf_oracle.load(args.model)
    ids = oracle.encode(args.text.read_text(encoding="utf-8"))
    n_chunks = min(len(ids) // quality.CHUNK, args.chunks or len(ids))
    figures = run(oracle, ids, n_chunks, args.cases.split(","))
    rows = []
    base = figures["fp32"].perplexity
    for name, f in figures.items():
        rows.append({"case": name, "what": CASES[name][0] if name in CASES else "fp32", "tokens": f.count,
                     "perplexity": f.perplexity, "perplexity_change": f.perplexity / base - 1,
                     "kl_mean": f.kl_mean, "top1_agreement": f.top1_agreement})
        print(f"{rows[-1]['what']:52} ppl {f.perplexity:8.4f} ({100 * rows[-1]['perplexity_change']:+.2f} %)"
              f"  KL {f.kl_mean:.5f}  top-1 {f.top1_agreement:.4f}  over {f.count} tokens")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
