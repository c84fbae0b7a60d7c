#!/usr/bin/env python3
"""qllm against llama.cpp on the same model, in one run: ours, theirs, ours, theirs, …

usage: compare_llama.py MODEL.gguf [options]          Python's standard library only

Each round runs `qllm bench` once and llama-bench once on every file given (and with and without flash
attention), with the same prompt and generation lengths and threads. Printed: medians over the rounds, the ratio ours/best of
theirs, and beside them the read bandwidth that our run measured. A difference below the spread shown is none.

--peer NAME=COMMAND adds another program: run by the shell once a round after {prompt}, {gen}, {depth} and {threads} have been put in, it
prints lines with pp… or tg… and the first "… tok/s" behind it. With --depth decode happens behind that many tokens; peers that cannot are told by {depth}.

Where: --qllm or $QLLM (default: qllm in PATH), --llama-bench or $LLAMA_BENCH, --llama-quantize or $LLAMA_QUANTIZE.
With llama-quantize, a Q8_0 made from MODEL competes too (8 bits a weight, as ours has).
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PHASES = ("prefill", "decode")
LINE = re.compile(r"\b(pp|tg)\d+.*?([0-9.]+) tok/s")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--synthetic", metavar="KEY=N,…", help="ours runs this shape instead of MODEL (MODEL has the same)")
    p.add_argument("--scheme", help="ours (default: int8)")
    p.add_argument("--theirs", type=Path, action="append", default=[], help="another GGUF for llama-bench; repeatable")
    p.add_argument("--qllm", default=os.environ.get("QLLM", "qllm"), help="'none': their side alone")
    p.add_argument("--llama-bench", default=os.environ.get("LLAMA_BENCH", "llama-bench"))
    p.add_argument("--llama-quantize", default=os.environ.get("LLAMA_QUANTIZE"))
    p.add_argument("--prompt", type=int, default=512, help="tokens of prefill (default %(default)s)")
    p.add_argument("--gen", type=int, default=64, help="tokens of decode (default %(default)s)")
    p.add_argument("--depth", type=int, default=0, help="tokens of context before what is timed (default %(default)s)")
    p.add_argument("--only", choices=PHASES, help="theirs runs this phase alone: behind a long context the other doubles the time")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    p.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default %(default)s)")
    p.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    return p.parse_args()


def run_json(command):
    """The JSON document that `command` prints to stdout."""
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    except OSError as e:
        sys.exit(f"compare_llama: error: {command[0]}: {e.strerror}")
    if done.returncode:
        sys.exit(f"compare_llama: error: {command[0]} ended with {done.returncode}: {done.stderr[-600:]}")
    start = min((i for i in map(done.stdout.find, "{[") if i >= 0), default=0)
    return json.loads(done.stdout[start:])


def make_q8(args, folder):
    out = folder / (args.model.stem + ".Q8_0.gguf")
    command = [args.llama_quantize, "--allow-requantize", args.model, out, "Q8_0", str(args.threads)]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare_llama: error: {args.llama_quantize}: {done.stderr[-600:]}")
    return out


def number(value):
    """A figure of `qllm bench --json`: plain, or an object with its median."""
    return value["median"] if isinstance(value, dict) else value


def ours_once(args, samples):
    model = ["--synthetic", args.synthetic] if args.synthetic else [args.model]
    document = run_json([args.qllm, "bench", *model, "--prompt", args.prompt, "--gen", args.gen, "--repeat", 1,
                         "--depth", args.depth, "--threads", args.threads, *(["--scheme", args.scheme] if args.scheme else []), "--json"])
    for phase in PHASES:
        samples.setdefault(("qllm", phase), []).append(number(document[phase]["tokens_per_s"]))
    samples.setdefault(("qllm", "ceiling_gbps"), []).append(number(document["ceiling_gbps"]))
    samples.setdefault(("qllm", "gbps"), []).append(number(document["decode"]["gbps"]))


def theirs_once(args, files, samples):
    """Runs llama-bench on each file; returns its commit."""
    commit = ""
    prompt = 0 if args.only == "decode" else args.prompt
    gen = 0 if args.only == "prefill" else args.gen
    for file in files:
        for test in run_json([args.llama_bench, "-m", file, "-p", prompt, "-n", gen, "-r", 1, "-t",
                              args.threads, *(["-d", args.depth] if args.depth else []), "-fa", "0,1", "-o", "json"]):
            name = f"llama.cpp {file.name}{' -fa' if int(test['flash_attn']) > 0 else ''}"
            phase = "prefill" if test["n_prompt"] else "decode"
            samples.setdefault((name, phase), []).extend(test["samples_ts"])
            commit = test["build_commit"]
    return commit


def peers_once(args, samples):
    for peer in args.peer:
        name, _, command = peer.partition("=")
        for key in ("prompt", "gen", "depth", "threads"):
            command = command.replace("{" + key + "}", str(getattr(args, key)))
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        found = LINE.findall(done.stdout)
        if done.returncode or not found:
            sys.exit(f"compare_llama: error: {command} ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
        for phase, value in found:
            samples.setdefault((name, "prefill" if phase == "pp" else "decode"), []).append(float(value))


def summarize(samples, commit, args):
    summary = {"threads": args.threads, "rounds": args.rounds, "prompt": args.prompt, "gen": args.gen,
               "llama_cpp_commit": commit, "results": {}}
    for (name, key), values in samples.items():
        summary["results"].setdefault(name, {})[key] = {
            "median": statistics.median(values), "min": min(values), "max": max(values)}
    theirs = {n: r for n, r in summary["results"].items() if n != "qllm"}
    for phase in [args.only] if args.only else PHASES:
        best = max((n for n in theirs if phase in theirs[n]), key=lambda n: theirs[n][phase]["median"])
        summary[phase] = {"best_of_theirs": best, "theirs": theirs[best][phase]["median"]}
        if "qllm" in summary["results"]:
            mine = summary["results"]["qllm"][phase]["median"]
            summary[phase] |= {"ours": mine, "ratio": mine / theirs[best][phase]["median"]}
    return summary


def print_table(s):
    heads = (f"prefill {s['prompt']}, tok/s", f"decode {s['gen']}, tok/s")
    print(f"{'':52} {heads[0]:>28} {heads[1]:>28}   ({s['rounds']} rounds, {s['threads']} threads)")
    for name, r in s["results"].items():
        cell = lambda x: f"{x['median']:.1f} ({x['min']:.1f}-{x['max']:.1f})" if x else "-"
        print(f"{name:52} {cell(r.get('prefill')):>28} {cell(r.get('decode')):>28}")
    for phase in PHASES:
        if "ratio" in s.get(phase, {}):
            print(f"{phase}: ours / best of theirs = {s[phase]['ratio']:.2f}   ({s[phase]['best_of_theirs']})")
    if "qllm" in s["results"]:
        r = s["results"]["qllm"]
        print(f"read bandwidth measured by ours: {r['ceiling_gbps']['median']:.1f} GB/s "
              f"({r['ceiling_gbps']['min']:.1f}-{r['ceiling_gbps']['max']:.1f}); decode used {r['gbps']['median']:.1f} GB/s")


def main():
    args = arguments()
    if not args.model.is_file():
        sys.exit(f"compare_llama: error: {args.model}: no such file")
    folder = Path(tempfile.mkdtemp(prefix="qllm-compare-"))
    try:
        files = [args.model, *args.theirs] + ([make_q8(args, folder)] if args.llama_quantize else [])
        samples, commit = {}, ""
        for i in range(args.rounds):
            print(f"round {i + 1} of {args.rounds}", file=sys.stderr)
            if args.qllm != "none":
                ours_once(args, samples)
            commit = theirs_once(args, files, samples)
            peers_once(args, samples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary = summarize(samples, commit, args)
    print(json.dumps(summary, indent=1)) if args.json else print_table(summary)


if __name__ == "__main__":
    main()
