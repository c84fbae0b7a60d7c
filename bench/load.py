#!/usr/bin/env python3
"""From the start of the program to the first token, beside a plain read of the same file:
load.py QLLM MODEL.qllm [--repeat 5] [--memory map] [--prompt TEXT] [--json]

MODEL may be a GGUF file whose packed copy is in the cache already: then the copy is what is read. Both are measured
by turns, warm (the file is in the page cache) and cold (its pages are given back before each run: posix_fadvise, which
needs no rights but leaves what other processes map). Memory is the most that the process held (ru_maxrss), beside
1.05 x weights + KV + 64 MiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

CHUNK = 1 << 20


def plain_read(path):
    """Seconds to read a file front to back into one buffer."""
    buffer = bytearray(CHUNK)
    begin = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.monotonic() - begin


def forget(path):
    """Takes the file out of the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(command):
    """(seconds to the first byte of its output, bytes of memory at most) of a program."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    process.stdout.read(1)
    seconds = time.monotonic() - begin
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status  # so that nobody waits for it again
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}")
    return seconds, usage.ru_maxrss * 1024


def packed_file(qllm, model):
    """The file that is mapped when the model is opened."""
    if model.endswith(".qllm"):
        return model
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "qllm")
    before = {f: os.stat(os.path.join(cache, f)).st_mtime_ns for f in os.listdir(cache)} if os.path.isdir(cache) else {}
    for _ in range(2):  # a copy just made is marked as good when it is opened later
        run([qllm, "run", model, "-p", "x", "-n", "1", "--quiet"])
        time.sleep(3)
    for name in os.listdir(cache):  # opening a copy touches its mark
        full = os.path.join(cache, name)
        if name.endswith(".qllm.ok") and os.stat(full).st_mtime_ns != before.get(name):
            return full.removesuffix(".ok")
    sys.exit(f"{model}: no packed copy in {cache}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qllm")
    parser.add_argument("model")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--memory", default="auto")
    parser.add_argument("--prompt", default="Hello")
    parser.add_argument("--no-cold", action="store_true", help="measure warm only")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    path = packed_file(arguments.qllm, arguments.model)
    size = os.path.getsize(path)
    info = json.loads(subprocess.run([arguments.qllm, "info", path, "--json"], check=True, capture_output=True).stdout)
    weights = info["model"]["weight_bytes"]
    kv = 64 * info["model"]["kv_bytes_per_token"]  # one block holds the prompt
    allowed = int(1.05 * weights + kv + (64 << 20))
    command = [arguments.qllm, "run", arguments.model, "-p", arguments.prompt, "-n", "1", "--quiet",
               "--memory", arguments.memory]  # fmt: skip
    result = {"file_bytes": size, "weight_bytes": weights, "allowed_rss_bytes": allowed}
    run(command)
    for state in ["warm"] if arguments.no_cold else ["warm", "cold"]:
        reads, firsts, memory = [], [], 0
        for _ in range(arguments.repeat):
            if state == "cold":
                forget(path)
            reads.append(plain_read(path))
            if state == "cold":
                forget(path)
            seconds, held = run(command)
            firsts.append(seconds)
            memory = max(memory, held)
        read, first = statistics.median(reads), statistics.median(firsts)
        result[state] = {"plain_read_s": read, "plain_read_s_min": min(reads), "plain_read_s_max": max(reads),
                         "first_token_s": first, "first_token_s_min": min(firsts), "first_token_s_max": max(firsts),
                         "ratio": first / read, "peak_rss_bytes": memory}  # fmt: skip
        if not arguments.json:
            print(f"{state}: plain read {read:.3f} s ({min(reads):.3f}-{max(reads):.3f}, {size / read / 1e9:.1f} GB/s), "
                  f"first token {first:.3f} s ({min(firsts):.3f}-{max(firsts):.3f}): {first / read:.2f} x; "
                  f"peak RSS {memory / 1e6:.0f} MB of {allowed / 1e6:.0f} allowed")  # fmt: skip
    if arguments.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
