#!/usr/bin/env python3
"""Greedy text of a GGUF model by transformers in fp32: the golden file of the model tests.

usage: make_greedy_goldens.py MODEL.gguf OUT.json [--confirm LLAMA_BIN_DIR --f32 MODEL-F32.gguf]

Three prompts, 64 tokens each, at every step the distance between the best two logits; refused where one is so
small that the order of fp32 sums could decide, or where a control token turns up (so that it does not
matter how a program treats the end of text). --confirm runs llama.cpp's llama-tokenize and
llama-completion (greedy, no flash attention, f32 KV) on the same weights written as F32.
"""
import argparse
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

import gguf_oracle

N_TOKENS = 64
LEAST_MARGIN = 0.01  # logits; fp32 implementations differ by about 1e-4 here
PROMPTS = [
    ("prose", "Water covers most of the Earth, yet only a small part of it is fresh. "
              "Rivers and lakes"),
    ("code", "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"),
    ("chatml", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
               "Explain why the sky is blue.<|im_end|>\n<|im_start|>assistant\n"),
]
LOGITS_PROMPT = "The capital of France is"
N_LOGITS = 64


@torch.no_grad()
def greedy(oracle, ids):
    """(generated ids, margins of the best over the second-best logit)."""
    step, cache, out, margins = torch.tensor([ids]), None, [], []
    for _ in range(N_TOKENS):
        result = oracle.net(step, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        top = result.logits[0, -1].float().topk(2)
        out.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        step = torch.tensor([[out[-1]]])
    return out, margins


def make_case(oracle, name, prompt):
    ids = oracle.encode(prompt)
    generated, margins = greedy(oracle, ids)
    text = oracle.tokenizer.decode(generated, skip_special_tokens=False)
    print(f"{name}: least margin {min(margins):.4f}: {text!r}", file=sys.stderr)
    if min(margins) < LEAST_MARGIN:
        raise SystemExit(f"{name}: margin {min(margins):.5f} below {LEAST_MARGIN}: choose another prompt")
    if oracle.control_ids.intersection(generated):
        raise SystemExit(f"{name}: a control token was generated: choose another prompt")
    return {"name": name, "prompt": prompt, "parse_special": True, "prompt_ids": ids,
            "generated_ids": generated, "text": text,
            "least_margin": round(min(margins), 5), "margins": [round(m, 4) for m in margins]}


def make_logits(oracle):
    ids = oracle.encode(LOGITS_PROMPT)
    last = oracle.logits(ids)[-1]
    return {"prompt": LOGITS_PROMPT, "prompt_ids": ids, "argmax": int(last.argmax()),
            "mean": float(last.mean()), "std": float(last.std()),
            "first": [round(float(x), 6) for x in last[:N_LOGITS]]}


def confirm(case, bin_dir, f32):
    """llama.cpp must give the same ids for the prompt and the same text behind it."""
    run = lambda program, *args, **kw: subprocess.run(
        [str(bin_dir / program), "-m", str(f32), *args], capture_output=True, check=True, **kw).stdout.decode()
    listed = run("llama-tokenize", "--ids", "--stdin", "--log-disable", input=case["prompt"].encode())
    if json.loads(listed.strip().splitlines()[-1]) != case["prompt_ids"]:
        raise SystemExit(f"{case['name']}: llama-tokenize gives other ids: {listed}")
    text = run("llama-completion", "-p", case["prompt"], "-n", str(N_TOKENS), "--temp", "0", "--top-k", "1",
               "--repeat-penalty", "1", "-no-cnv", "--no-display-prompt", "--no-warmup", "-c", "512",
               "-fa", "off", "-ctk", "f32", "-ctv", "f32", "-t", "1", stdin=subprocess.DEVNULL)
    if text.rstrip("\n") != case["text"].rstrip("\n"):
        raise SystemExit(f"{case['name']}: llama.cpp says otherwise:\n{text!r}\n{case['text']!r}")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--confirm", type=Path, metavar="LLAMA_BIN_DIR")
    parser.add_argument("--f32", type=Path, help="the same model as F32 GGUF (llama-quantize --allow-requantize)")
    parser.add_argument("--confirm-version", default="", help="what to record of the confirming program")
    args = parser.parse_args()
    oracle = gguf_oracle.load(args.model)
    cases = [make_case(oracle, *p) for p in PROMPTS]
    if args.confirm:
        for case in cases:
            confirm(case, args.confirm, args.f32)
    version = importlib.metadata.version
    document = {
        "made_by": "scripts/make_greedy_goldens.py: transformers LlamaForCausalLM, float32, eager attention",
        "versions": {p: version(p) for p in ("torch", "transformers", "tokenizers", "gguf", "numpy")},
        "confirmed_by": f"llama.cpp {args.confirm_version} llama-completion on the weights as F32: prompt ids "
                        "and text equal (greedy, -fa off, KV f32)" if args.confirm else "",
        "model": args.model.name,
        "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
        "cases": cases,
        "logits": make_logits(oracle),
    }
    text = json.dumps(document, indent=1) + "\n"
    one_line = lambda m: re.sub(r"\s+", " ", m.group(0)).replace("[ ", "[").replace(" ]", "]")
    args.out.write_text(re.sub(r"\[[\s\d.,e+-]+\]", one_line, text))


if __name__ == "__main__":
    main()
