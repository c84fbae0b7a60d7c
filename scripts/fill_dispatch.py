#!/usr/bin/env python3
"""Fills the rows of backends/cpu/kernels/dispatch_table.inc for the tiers that this machine has.

    fill_dispatch.py build/release/bench/matmul [--isa NAME] [--repeat N] [--threads N] [--dry-run]
    fill_dispatch.py --self-test

Runs the kernels of each tier, and oneDNN with the best one, on weights that no cache holds, and names
the fastest of each shape and M. A kernel gives way only to one that is MARGIN faster, and not slower at
the next M, so that noise does not write rows. Only a tier with more than one candidate is measured. Idle machine, please.
"""
import argparse
import datetime
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "backends/cpu/kernels/dispatch_table.inc"
TOKENS = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 512]
SHAPES = [(1536, 576), (4096, 4096), (14336, 4096)]  # of all workers; ascending
MARGIN = 1.05
ROW = re.compile(r'^QLLM_DISPATCH\((\w+), (\d+), (\d+), (\d+), (\w+), (\d+), "(.*)"\)$')
NAME = re.compile(r"^(?:dot_u8s8s32_n64k4_(\w+?)_(\w+)|(onednn))/M:(\d+)/N:(\d+)/K:(\d+)")


def run(bench, shape, repeat, threads):
    """{(isa, M): {kernel: median seconds}}; oneDNN has the isa None."""
    command = [bench, "--json", f"--repeat={repeat}", "--m", ",".join(map(str, TOKENS)), "--shape", "%d,%d" % shape,
               "--benchmark_min_time=0.05", "--benchmark_filter=^(dot_u8s8s32_n64k4_[a-z]+_(avx|amx)|onednn)", "--benchmark_enable_random_interleaving=true"]
    if threads:
        command += [f"--threads={threads}"]
    out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    times = {}
    for entry in out["benchmarks"]:
        match = NAME.match(entry["name"])
        if not match or entry.get("run_type") != "iteration":
            continue
        kernel, isa = match[1] or "onednn", match[2]
        times.setdefault((isa, int(match[4])), {}).setdefault(kernel, []).append(entry["real_time"])
    return {key: {k: statistics.median(v) for k, v in kernels.items()} for key, kernels in times.items()}


def winners(times):
    """[(M, kernel)] where the kernel changes, from {M: {kernel: seconds}}. A change counts if it also holds at the next M."""
    tokens, rows = sorted(times), []
    for i, m in enumerate(tokens):
        best = min(times[m], key=times[m].get)
        current = rows[-1][1] if rows else None
        after = times[tokens[min(i + 1, len(tokens) - 1)]]
        if current is None or (times[m].get(current, float("inf")) > MARGIN * times[m][best]
                               and after.get(current, float("inf")) >= after.get(best, float("inf"))):
            rows.append((m, best))
    return rows


def table_rows(by_shape, threads):
    """(m_from, n_from, k_from, kernel) for each shape that adds to those before it; n is of a worker."""
    rows = []
    for i, ((n, k), times) in enumerate(by_shape):
        at = (64, 64) if i == 0 else (n // threads // 64 * 64, k)
        found = winners(times)
        if i > 0 and found == last:
            continue
        last = found
        rows += [(m, *at, kernel) for m, kernel in found]
    return rows


def replace(text, isa, rows, note):
    """The table with the rows of one tier exchanged."""
    lines, place, kib = [], None, {}
    for line in text.splitlines():
        match = ROW.match(line)
        if match and match[1] == isa:
            kib[match[5]] = match[6]
            place = len(lines) if place is None else place
        else:
            lines.append(line)
    if place is None:
        raise SystemExit(f"{TABLE}: no row of tier {isa}")
    new = [f'QLLM_DISPATCH({isa}, {m}, {n}, {k}, {kernel}, {kib.get(kernel, 128)}, "{note}")' for m, n, k, kernel in rows]
    return "\n".join(lines[:place] + new + lines[place:]) + "\n"


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return re.sub(r'["\\]', "", line.split(": ", 1)[1].strip())
    return "unknown processor"


def fill(options):
    import os
    threads = options.threads or len(os.sched_getaffinity(0))
    measured = [(shape, run(options.bench, shape, options.repeat, options.threads)) for shape in SHAPES]
    tiers = sorted({isa for isa, _ in measured[0][1] if isa})
    with_onednn = any(isa is None for isa, _ in measured[0][1])
    best = [t for t in ("amx", "avx512vnni", "avxvnni", "avx2", "scalar") if t in tiers][0]
    text = TABLE.read_text()
    note = f"measured: {processor()}, {threads} workers, {datetime.date.today()}"
    for isa in tiers:
        if options.isa and isa != options.isa:
            continue
        by_shape = []
        for shape, times in measured:
            of_tier = {m: dict(times[(isa, m)]) for m in TOKENS if (isa, m) in times}
            for m in of_tier:
                if isa == best and with_onednn:
                    of_tier[m].update(times.get((None, m), {}))
            by_shape.append((shape, of_tier))
            for m in of_tier:
                print(f"{isa} {shape[0]} x {shape[1]} M {m}: " + ", ".join(
                    f"{k} {t:.3f} ms" for k, t in sorted(of_tier[m].items(), key=lambda kt: kt[1])))
        if len({k for _, times in by_shape for m in times for k in times[m]}) < 2:
            continue
        text = replace(text, isa, table_rows(by_shape, threads), note)
    print(text) if options.dry_run else TABLE.write_text(text)


def self_test():
    assert winners({1: {"a": 1.0, "b": 2.0}, 8: {"a": 1.0, "b": 0.99}, 16: {"a": 1.0, "b": 0.5}}) == [(1, "a"), (16, "b")]
    assert winners({1: {"a": 1.0, "b": 2.0}, 8: {"a": 1.0, "b": 0.5}, 16: {"a": 0.9, "b": 1.0}}) == [(1, "a")]
    assert winners({1: {"a": 1.0}, 2: {"a": 2.0, "b": 1.0}, 4: {"b": 1.0, "a": 1.0}}) == [(1, "a"), (2, "b")]
    same = {1: {"a": 1.0, "b": 2.0}}
    other = {1: {"a": 2.0, "b": 1.0}}
    assert table_rows([((1536, 576), same), ((4096, 4096), same)], 2) == [(1, 64, 64, "a")]
    assert table_rows([((1536, 576), same), ((4096, 4096), other)], 2) == [(1, 64, 64, "a"), (1, 2048, 4096, "b")]
    text = '// t\nQLLM_DISPATCH(x, 1, 64, 64, a, 128, "reasoned: r")\nQLLM_DISPATCH(y, 1, 64, 64, c, 512, "reasoned: r")\n'
    new = replace(text, "x", [(1, 64, 64, "a"), (9, 64, 64, "b")], "measured: m")
    assert new.splitlines()[1:3] == ['QLLM_DISPATCH(x, 1, 64, 64, a, 128, "measured: m")',
                                     'QLLM_DISPATCH(x, 9, 64, 64, b, 128, "measured: m")']
    assert new.endswith('QLLM_DISPATCH(y, 1, 64, 64, c, 512, "reasoned: r")\n')
    # Every row of the table is one that the script can read.
    assert all(ROW.match(line) for line in TABLE.read_text().splitlines() if line.startswith("QLLM_DISPATCH"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="?")
    parser.add_argument("--isa")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
    elif arguments.bench:
        fill(arguments)
    else:
        parser.error("the path of bench/matmul is missing")
    sys.exit(0)
