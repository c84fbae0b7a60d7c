#!/usr/bin/env python3
"""Whether the roofline's bounds hold: decode of a model beside its least time, schemes and batches by turns.

usage: bench/roofline_check.py QLLM [--rounds 2] [--repeat 9] [--schemes int8,int4-g128] [--batch 1,4,16] [--json] [-- more flags]

Each round runs `qllm roofline --measure` once for each scheme, whose rounds of decode go over the batches by turns, each with its
ceilings measured before and behind it. Shown are medians over the runs and the least and greatest of all rounds: measured time over
the tool's bound (bytes at the read bandwidth, linears at the rate of their kernels from the cache), and over the bound by multiply-adds
from registers. Exit status 1 where a median lies outside of 1.00 to 1.15.
"""
import argparse
import json
import statistics
import subprocess
import sys

LOW, HIGH = 1.00, 1.15  # what a bound that predicts is allowed


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"roofline_check: {' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout)


def register_bound_ms(document, phase):
    """The bound of a decode step by bandwidth and by multiply-adds from registers."""
    ceilings = phase["ceilings"]
    total = 0.0
    for op in document["ops"]:
        if any(op[key] != phase[key] for key in ("phase", "device", "batch", "context", "scheme")):
            continue
        is_linear = op["name"] in ("q", "k", "v", "o", "gate", "up", "down", "lm_head")
        peak = ceilings["int8_tops"] if is_linear else ceilings["fp32_tflops"]
        total += max(op["bytes"] / (ceilings["read_gbps"] * 1e9), op["operations"] / (peak * 1e12))
    return total * 1e3


def measure(arguments, more):
    """{(scheme, batch): [{…} for each run]}"""
    results = {}
    for _ in range(arguments.rounds):
        for scheme in arguments.schemes.split(","):
            document = run([arguments.qllm, "roofline", "--preset", arguments.preset, "--device", "cpu", "--measure", "--json", "--quiet",
                            "--scheme", scheme, "--batch", arguments.batch, "--context", str(arguments.context),
                            "--repeat", str(arguments.repeat), *more])  # fmt: skip
            for phase in document["phases"]:
                if phase["phase"] == "decode":
                    phase["register_bound_ms"] = register_bound_ms(document, phase)
                    results.setdefault((scheme, phase["batch"]), []).append(phase)
    return results


def summary(key, runs):
    def median(name):
        return statistics.median(r[name] for r in runs)

    kernel = [k["tops"] for r in runs for k in r["ceilings"]["kernels"] if k["scheme"] == key[0] and k["tokens"] == key[1]]
    return {
        "scheme": key[0],
        "batch": key[1],
        "measured_ms": median("measured_ms"),
        "bound_ms": median("bound_ms"),
        "ratio": median("measured_over_bound"),
        "ratio_min": min(r["measured_over_bound_min"] for r in runs),
        "ratio_max": max(r["measured_over_bound_max"] for r in runs),
        "waiting_share": median("waiting_share"),
        "register_ratio": statistics.median(r["measured_ms"] / r["register_bound_ms"] for r in runs),
        "compute_bound_share": median("compute_bound_share"),
        "read_gbps": statistics.median(r["ceilings"]["read_gbps"] for r in runs),
        "int8_tops": statistics.median(r["ceilings"]["int8_tops"] for r in runs),
        "kernel_tops": statistics.median(kernel) if kernel else None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qllm")
    parser.add_argument("--preset", default="bench-1b")
    parser.add_argument("--schemes", default="int8,int4-g128")
    parser.add_argument("--batch", default="1,4,16")
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    rows = [summary(key, runs) for key, runs in measure(arguments, more).items()]
    holds = all(LOW <= row["ratio"] <= HIGH for row in rows)
    if arguments.json:
        print(json.dumps({"rows": rows, "holds": holds}, indent=2))
    else:
        print("scheme     batch  step ms  bound ms  measured / bound     / by registers  waiting  bound by        GB/s  TOPS: kernel, registers")
        for r in rows:
            kernel = f"{r['kernel_tops']:.3f}" if r["kernel_tops"] else "-"
            compute = r["compute_bound_share"]
            bound = f"compute {compute:4.0%}" if compute > 0.5 else f"memory {1 - compute:5.0%}"
            print(f"{r['scheme']:10} {r['batch']:5}  {r['measured_ms']:7.1f}  {r['bound_ms']:8.1f}  {r['ratio']:5.2f} ({r['ratio_min']:.2f}-{r['ratio_max']:.2f})"
                  f"{r['register_ratio']:15.2f}  {r['waiting_share']:7.0%}  {bound:14}  {r['read_gbps']:4.1f}  {kernel}, {r['int8_tops']:.3f}")  # fmt: skip
        print(f"medians within {LOW:.2f} to {HIGH:.2f}: {'yes' if holds else 'no'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
