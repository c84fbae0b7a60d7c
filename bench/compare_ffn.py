#!/usr/bin/env python3
"""bench/ffn against others on the same FFN, in one run: ours, theirs, ours, theirs, …

usage: compare_ffn.py --peer NAME=COMMAND … [options]          Python's standard library only

Each round runs our program once and each peer's command once, with the same numbers of tokens M. Printed: medians over the
rounds, for each M the ratio best of theirs / ours (above 1: ours is faster), and the ceilings that our run measured. A
difference below the spread shown is none.

COMMAND is run by the shell after {m} (1,4,16), {threads}, {d_model} and {d_ff} have been put in. It prints either lines with
"M=16" and the first "… ms" behind it, or the JSON of llama-bench (n_prompt, samples_ns) run on a model of one such layer.
--peer competes with our int8, --peer4 with our int4. More of them: one NAME=COMMAND a line in $FFN_PEERS, $FFN_PEERS4.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

LINE = re.compile(r"\bM=(\d+)\b.*?([0-9.]+) ms")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", action="append", default=os.environ.get("FFN_PEERS", "").splitlines(), metavar="NAME=COMMAND")
    p.add_argument("--peer4", action="append", default=os.environ.get("FFN_PEERS4", "").splitlines(),
                   metavar="NAME=COMMAND")  # fmt: skip
    p.add_argument("--ffn", default=os.environ.get("QLLM_FFN", "build/release/bench/ffn"), help="our program (default %(default)s)")
    p.add_argument("--m", default="1,4,8,16,64,512", help="(default %(default)s)")
    p.add_argument("--d-model", type=int, default=7168, help="(default %(default)s)")
    p.add_argument("--d-ff", type=int, default=28672, help="(default %(default)s)")
    p.add_argument("--weights", default="int8,int4", help="of ours (default %(default)s)")
    p.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default %(default)s)")
    p.add_argument("--timeout", type=float, default=300, help="seconds for one call (default %(default)s)")
    p.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    p.add_argument("--self-test", action="store_true", help="check this script's own arithmetic and leave")
    return p.parse_args()


def parse_times(text):
    """{M: seconds} of a peer's output."""
    start = text.find("[\n")
    if start >= 0 and '"samples_ns"' in text:
        tests = json.loads(text[start : text.rindex("]") + 1])
        return {t["n_prompt"]: statistics.median(t["samples_ns"]) / 1e9 for t in tests}
    return {int(m): float(ms) / 1e3 for m, ms in LINE.findall(text)}


def run(command, timeout):
    try:
        done = subprocess.run(command, shell=isinstance(command, str), capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as e:
        sys.exit(f"compare_ffn: error: {command}: {e}")
    if done.returncode:
        sys.exit(f"compare_ffn: error: {command} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def ours_once(args, samples, ceilings):
    document = json.loads(run([args.ffn, "--json", "--repeat", "1", "--threads", str(args.threads), "--m", args.m, "--weights",
                               args.weights, "--d-model", str(args.d_model), "--d-ff", str(args.d_ff)], args.timeout))  # fmt: skip
    for r in document["results"]:
        name = f"qllm {r['weights']}"
        samples.setdefault((name, r["m"]), []).append(r["ms"]["median"] / 1e3)
        samples.setdefault((name + " %", r["m"]), []).append(r["percent_of_ceiling"]["median"])
        ceilings.setdefault("gbps", []).append(r["ceiling_gbps"]["median"])
        ceilings.setdefault("tops", []).append(r["peak_tops"]["median"])


def peer_once(args, name, command, samples):
    for key, value in (("m", args.m), ("threads", args.threads), ("d_model", args.d_model), ("d_ff", args.d_ff)):
        command = command.replace("{" + key + "}", str(value))
    times = parse_times(run(command, args.timeout))
    if not times:
        sys.exit(f"compare_ffn: error: {name}: no times in what it printed")
    for m, seconds in times.items():
        samples.setdefault((name, m), []).append(seconds)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(results, ours, peers, tokens):
    """For each M the best peer and its time over ours."""
    found = {}
    for m in map(str, tokens):
        there = [p for p in peers if m in results.get(p, {})]
        if not there or m not in results.get(ours, {}):
            continue
        best = min(there, key=lambda p: results[p][m]["median"])
        found[m] = {"best": best, "ratio": results[best][m]["median"] / results[ours][m]["median"]}
    return found


def summarize(samples, ceilings, peers, args):
    results = {}
    for (name, m), values in samples.items():
        results.setdefault(name, {})[str(m)] = spread(values)
    tokens = [int(m) for m in args.m.split(",")]
    return {"d_model": args.d_model, "d_ff": args.d_ff, "threads": args.threads, "rounds": args.rounds, "m": tokens,
            "results": results, "ceilings": {k: spread(v) for k, v in ceilings.items()},
            "ratios": {ours: ratios(results, ours, names, tokens) for ours, names in peers.items()}}  # fmt: skip


def print_table(s):
    print(f"FFN of {s['d_model']} x {s['d_ff']}, {s['threads']} threads, {s['rounds']} rounds: median ms (min-max)")
    cells = [["M", *map(str, s["m"])]]
    for name, by_m in s["results"].items():
        unit, digits = (1, 0) if name.endswith(" %") else (1e3, 1)
        row = [name + (" of the ceiling" if unit == 1 else "")]
        for m in map(str, s["m"]):
            r = by_m.get(m)
            row.append("–" if r is None else "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(
                *(r[k] * unit for k in ("median", "min", "max")), d=digits))  # fmt: skip
        cells.append(row)
    for ours, by_m in s["ratios"].items():
        if by_m:
            cells.append([f"best of theirs / {ours}", *(
                f"{by_m[m]['ratio']:.2f} {by_m[m]['best']}" if m in by_m else "–" for m in map(str, s["m"]))])  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))))
    for key, unit in (("gbps", "GB/s read"), ("tops", "TOPS of int8 from registers")):
        c = s["ceilings"][key]
        print(f"ceiling: {c['median']:.3g} ({c['min']:.3g}-{c['max']:.3g}) {unit}")


def self_test():
    assert parse_times("ffn ov M=1: median 27.50 ms min 27 ms\nnoise 3 ms\nM=16 61 ms") == {1: 0.0275, 16: 0.061}
    llama = 'log\n[\n {"n_prompt": 4, "samples_ns": [3000000, 1000000, 2000000]}\n]\n'
    assert parse_times(llama) == {4: 0.002}
    times = {"a": {"1": {"median": 3}, "4": {"median": 1}}, "b": {"1": {"median": 2}}, "o": {"1": {"median": 1}}}
    assert ratios(times, "o", ["a", "b"], [1, 4]) == {"1": {"best": "b", "ratio": 2.0}}
    assert spread([3, 1, 2]) == {"median": 2, "min": 1, "max": 3}


def main():
    args = arguments()
    if args.self_test:
        return self_test()
    samples, ceilings, peers, commands = {}, {}, {"qllm int8": [], "qllm int4": []}, {}
    for ours, given in (("qllm int8", args.peer), ("qllm int4", args.peer4)):
        for text in filter(str.strip, given):
            name, equals, command = text.partition("=")
            if not equals or not command.strip():
                sys.exit(f"compare_ffn: error: expected NAME=COMMAND, found {text}")
            peers[ours].append(name.strip())
            commands[name.strip()] = command
    for i in range(args.rounds):
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr)
        ours_once(args, samples, ceilings)
        for name, command in commands.items():
            peer_once(args, name, command, samples)
    summary = summarize(samples, ceilings, peers, args)
    print(json.dumps(summary, indent=1)) if args.json else print_table(summary)


if __name__ == "__main__":
    main()
