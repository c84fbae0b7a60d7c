#!/usr/bin/env python3
"""Compares the output of `qllm logits` with transformers' fp32 logits of the same GGUF.

usage: check_logits.py MODEL.gguf LOGITS.npy IDS [--max-abs X] [--max-kl X]

IDS: the comma-separated ids given to `qllm logits --ids`. Exit status 1 where a bound given is exceeded.
"""
import argparse
import json
import sys

import numpy as np

import gguf_oracle
import quality


def compare(ours, theirs):
    p, q = quality.log_softmax(theirs), quality.log_softmax(ours)
    difference = np.abs(ours.astype(np.float64) - theirs)
    kl = (np.exp(p) * (p - q)).sum(-1)
    return {
        "tokens": len(theirs),
        "max_abs": float(difference.max()),
        "rms": float(np.sqrt((difference**2).mean())),
        "relative_rms": float(np.sqrt((difference**2).mean()) / theirs.std()),  # of the logits' own spread
        "kl_mean": float(kl.mean()),
        "kl_max": float(kl.max()),
        "top1_agreement": float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("logits")
    parser.add_argument("ids", type=lambda text: [int(x) for x in text.split(",")])
    parser.add_argument("--max-abs", type=float, default=float("inf"), help="bound on the largest difference")
    parser.add_argument("--max-kl", type=float, default=float("inf"), help="bound on the mean KL divergence, nats")
    args = parser.parse_args()
    ours = np.load(args.logits, allow_pickle=False)
    theirs = gguf_oracle.load(args.model).logits(args.ids)
    if ours.shape != theirs.shape:
        sys.exit(f"{args.logits}: expected shape {list(theirs.shape)}, found {list(ours.shape)}")
    if not np.isfinite(ours).all():
        sys.exit(f"{args.logits}: {np.count_nonzero(~np.isfinite(ours))} values are not finite")
    result = compare(ours, theirs)
    print(json.dumps(result, indent=1))
    if result["max_abs"] > args.max_abs or result["kl_mean"] > args.max_kl:
        sys.exit("check_logits: a bound was exceeded")


if __name__ == "__main__":
    main()
