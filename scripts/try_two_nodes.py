#!/usr/bin/env python3
"""A guest of two memory nodes under QEMU: where do the weights really lie, and is the text the same?

    scripts/try_two_nodes.py [--build build/release] [--model FILE.gguf] [--keep FOLDER]

Boots a Linux kernel of the host's distribution with qllm in an initramfs (software emulation, no rights needed, some
minutes) and runs every policy of --numa. Each claim is checked with what the guest's kernel says of each page:

  split        every page on the node of the worker that reads it; both nodes hold about half
  interleave   both nodes hold about half, and half of all reads are remote
  local        all pages and workers on one node
  replicate    a whole copy on each node, nothing remote
  refused      split, with mbind refused by a seccomp filter: one warning, and first touch puts the pages right

Exit status: 0 all good, 1 a check failed, 77 skipped: qemu-system-x86_64, busybox (static), cpio or a kernel is missing
(Debian: qemu-system-x86 busybox-static cpio linux-image-cloud-amd64).
"""

import argparse
import glob
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIP = 77
TIMEOUT_S = 900
POLICIES = ["split", "interleave", "local", "replicate"]
SHAPE = "d_model=512,d_ff=1024,n_layers=4,n_heads=8,n_kv_heads=2,head_dim=64,vocab=4096"
REFUSED = "mbind,set_mempolicy,migrate_pages"

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
export LD_LIBRARY_PATH=/lib
run() {  # name, then a command: its output between marks
  name=$1; shift
  "$@" >/tmp/out 2>/tmp/err
  echo "@@begin $name $?"; /bin/busybox cat /tmp/out; echo "@@err"; /bin/busybox cat /tmp/err; echo "@@end"
}
@@jobs
/bin/busybox poweroff -f
"""


def skip(what):
    print(f"[skipped] two nodes: {what}")
    sys.exit(SKIP)


def newest_kernel():
    kernels = [k for k in glob.glob("/boot/vmlinuz-*") if os.access(k, os.R_OK)]
    if not kernels:
        skip("no readable /boot/vmlinuz-*")
    return max(kernels, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])


def tool(name):
    found = shutil.which(name)
    if not found:
        skip(f"{name} is not installed")
    return found


def libraries(program):
    """Paths that the loader takes, the loader included."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", out)))


def commands(args):
    """Name -> command line in the guest."""
    jobs = {"machine": "/qllm info --json"}
    for policy in POLICIES:
        jobs[f"run-{policy}"] = f"/qllm run /model.gguf -p Hello -n 12 --greedy --ignore-eos --json --no-cache --numa {policy}"
        jobs[f"info-{policy}"] = f"/qllm info /model.gguf --placement --json --no-cache --numa {policy}"
        # Large pages go to the nodes by turns too: of so small a model they make no halves.
        small_pages = "/refuse --no-thp '' " if policy == "interleave" else ""
        jobs[f"shape-{policy}"] = f"{small_pages}/qllm info --synthetic {SHAPE} --placement --json --numa {policy}"
    # A packed file is not mapped but copied to its workers' nodes.
    jobs["info-packed"] = "/qllm info /model.qllm --placement --json"
    jobs["run-packed"] = jobs["run-split"].replace("/model.gguf", "/model.qllm")
    jobs["run-refused"] = f"/refuse {REFUSED} {jobs['run-split']}"
    jobs["info-refused"] = f"/refuse {REFUSED} {jobs['info-split']}"
    return jobs


def make_root(root, args, jobs):
    for program in (args.build / "bin/qllm", args.build / "tests/refuse"):
        shutil.copy(program, root / program.name)
        for library in libraries(program):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    # What lies outside the loader's own folders is found there.
    (root / "lib").mkdir(exist_ok=True)
    for library in root.rglob("*.so*"):
        if not (root / "lib" / library.name).exists():
            shutil.copy(library, root / "lib" / library.name)
    shutil.copy(args.model, root / "model.gguf")
    packed = [args.build / "bin/qllm", "quantize", args.model, "-o", root / "model.qllm", "--scheme", "int8", "--quiet"]
    subprocess.run([str(part) for part in packed], check=True)
    (root / "bin").mkdir(exist_ok=True)
    shutil.copy(tool("busybox"), root / "bin/busybox")
    script = "\n".join(f"run {name} {command}" for name, command in jobs.items())
    (root / "init").write_text(INIT.replace("@@jobs", script))
    (root / "init").chmod(0o755)


def pack(root, image):
    names = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
    done = subprocess.run([tool("cpio"), "-o", "-H", "newc", "--quiet"], cwd=root, input=names, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"cpio: {done.stderr.decode()}")
    image.write_bytes(gzip.compress(done.stdout, 1))


def boot(image, args):
    node = "-object memory-backend-ram,id=m{0},size=1G -numa node,nodeid={0},cpus={1},memdev=m{0}"
    line = [tool("qemu-system-x86_64"), "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2G",
            "-smp", "4,sockets=2,cores=2,threads=1", *node.format(0, "0-1").split(), *node.format(1, "2-3").split(),
            "-numa", "dist,src=0,dst=1,val=20", "-kernel", newest_kernel(), "-initrd", image, "-nographic", "-no-reboot",
            "-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]  # fmt: skip
    try:
        done = subprocess.run([str(part) for part in line], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
        return done.stdout.decode(errors="replace").replace("\r", "")
    except subprocess.TimeoutExpired as late:
        print((late.stdout or b"").decode(errors="replace")[-3000:])
        sys.exit(f"two nodes: the guest took more than {TIMEOUT_S} s")


def results(console):
    """Name -> (status, output, errors)."""
    found = {}
    for part in console.split("@@begin ")[1:]:
        head, body = part.split("\n", 1)
        name, status = head.split()
        out, rest = body.split("@@err\n", 1)
        found[name] = (int(status), out, rest.split("@@end", 1)[0])
    return found


class Checks:
    def __init__(self):
        self.failed = 0

    def that(self, ok, what):
        self.failed += not ok
        print(f"{'ok    ' if ok else 'FAILED'}  {what}")


def bytes_on(placement):
    sums = {}
    for node in placement["nodes"]:
        sums[node["node"]] = sums.get(node["node"], 0) + node["weight_bytes"]
    return [sums.get(node, 0) for node in (0, 1)]


def check_policy(checks, policy, what, placement):
    a, b = bytes_on(placement)
    total = a + b
    name = f"{policy} ({what})"
    print(f"{name}: {a} and {b} bytes on nodes 0 and 1, {placement['local_bytes']} local, {placement['remote_bytes']} remote")
    checks.that(placement["known"] and placement["nowhere_bytes"] == 0, f"{name}: the kernel tells of every page")
    even = total > 0 and abs(a - b) <= 0.2 * total
    if policy == "local":
        checks.that(sorted([a, b])[0] == 0 and total > 0, f"{name}: all pages on one node")
        checks.that(sum(n["workers"] for n in placement["nodes"]) == 2, f"{name}: the two workers of that node")
    else:
        # The tiny file has too few blocks of 64 rows for four equal workers.
        checks.that(even or policy == "split" and what == "file", f"{name}: both nodes hold about half")
        checks.that(sum(n["workers"] for n in placement["nodes"]) == 4, f"{name}: four workers")
    if policy == "interleave":
        checks.that(abs(placement["remote_bytes"] - total / 2) <= 0.15 * total, f"{name}: half of all reads are remote")
    else:
        checks.that(placement["remote_bytes"] == 0, f"{name}: every page on the node of the worker that reads it")
        checks.that(placement["local_bytes"] == total, f"{name}: and all of them counted")
    checks.that(placement["remote_bytes_per_step"] == placement["remote_bytes"], f"{name}: remote reads of a step")


def check(found, jobs):
    checks = Checks()
    for name in jobs:
        status = found.get(name, (None, "", ""))[0]
        if status != 0:
            print(*found.get(name, ("did not run",)), sep="\n")
        checks.that(status == 0, f"{name}: ran")
    if checks.failed:
        return checks
    documents = {name: json.loads(out) for name, (_, out, _) in found.items()}
    machine = documents["machine"]["machine"]
    checks.that((machine["numa_nodes"], machine["workers"]) == (2, 4), "the guest has two nodes and four workers")
    whole = sum(bytes_on(documents["info-split"]["placement"]))
    for policy in POLICIES:
        check_policy(checks, policy, "file", documents[f"info-{policy}"]["placement"])
        check_policy(checks, policy, "shape", documents[f"shape-{policy}"]["placement"])
    packed = documents["info-packed"]["placement"]
    checks.that(packed["remote_bytes"] == 0 and packed["local_bytes"] == whole, "packed file: copied to its workers' nodes")
    copies = bytes_on(documents["info-replicate"]["placement"])
    checks.that(copies == [whole, whole], f"replicate: a whole copy of {whole} bytes on each node")
    texts = {policy: documents[f"run-{policy}"]["text"] for policy in [*POLICIES, "refused", "packed"]}
    checks.that(len(set(texts.values())) == 1 and texts["split"], f"the same text under all: {texts['split']!r}")
    warnings = [line for line in found["run-refused"][2].splitlines() if "warning" in line]
    checks.that(len(warnings) == 1 and "memory binding refused" in warnings[0], f"refused: one line: {warnings}")
    refused = documents["info-refused"]["placement"]
    checks.that(not refused["bound"] and refused["remote_bytes"] == 0, "refused: first touch put every page right")
    return checks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--model", type=Path, help="default: the tests' tiny model")
    parser.add_argument("--keep", type=Path, help="a folder for what the guest said")
    args = parser.parse_args()
    args.model = args.model or args.build / "tests/tiny.gguf"
    for needed in (args.build / "bin/qllm", args.build / "tests/refuse", args.model):
        if not needed.exists():
            sys.exit(f"two nodes: {needed} is missing: build first")
    for name in ("qemu-system-x86_64", "busybox", "cpio"):
        tool(name)
    jobs = commands(args)
    with tempfile.TemporaryDirectory(prefix="qllm-nodes-") as work:
        root = Path(work) / "root"
        root.mkdir()
        make_root(root, args, jobs)
        image = Path(work) / "initramfs"
        pack(root, image)
        console = boot(image, args)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        (args.keep / "console.txt").write_text(console)
    found = results(console)
    if not found:
        print(console[-3000:])
        sys.exit("two nodes: the guest said nothing")
    checks = check(found, jobs)
    print(f"{checks.failed} check(s) failed" if checks.failed else "all checks hold")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
