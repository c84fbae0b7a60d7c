#!/usr/bin/env python3
"""Fails where an object of the AMX tier does not contain the tile instructions as they were meant.

    check_tile_code.py OBJECT...
    check_tile_code.py --self-test

The machines that build and test this may lack AMX, and the tests then run the kernels over tiles in
software: so what the assembler made of the real ones is read back from `objdump -d`.
"""
import os
import re
import subprocess
import sys

OPERANDS = {
    "ldtilecfg": r"(0x[0-9a-f]+|-0x[0-9a-f]+)?\(%\w+\)",
    "tilezero": r"%tmm([0-7])",
    "tileloadd": r"(?:-?0x[0-9a-f]+)?\(%\w+,%\w+,1\),%tmm([0-7])",
    "tilestored": r"%tmm([0-7]),(?:-?0x[0-9a-f]+)?\(%\w+,%\w+,1\)",
    "tilerelease": r"",
}
DOT_OPERANDS = r"%tmm([0-7]),%tmm([0-7]),%tmm([0-7])"  # weights, x, sums
# By what stands in the object's name: the dots it must have, and whether it goes on with sums from memory.
KINDS = {"dot_": (("tdpbusd",), True), "attend_int8": (("tdpbusd", "tdpbssd"), False), "attend_bf16": (("tdpbf16ps",), False)}


def problems(text, kind="dot_"):
    """What is wrong with a disassembly, as sentences."""
    names, loads_sums = KINDS[kind]
    expected = {**OPERANDS, **{name: DOT_OPERANDS for name in names}}
    found, bad = {}, []
    for line in text.splitlines():
        match = re.match(r"\s*[0-9a-f]+:\t[0-9a-f ]+\t(\w+)\s*(.*?)\s*$", line)
        if not match or match[1] not in expected and not match[1].startswith(("tdp", "tile", "sttile")):
            continue
        name, operands = match[1], match[2]
        form = re.fullmatch(expected.get(name, "$^"), operands)
        if not form:
            bad.append(f"unexpected {name} {operands}")
            continue
        found.setdefault(name, []).append(tuple(int(g) for g in form.groups() if g and g.isdigit()))
    bad += [f"no {name}" for name in expected if name not in found]
    if bad:
        return bad
    loaded = {t for (t,) in found["tileloadd"]}
    zeroed = {t for (t,) in found["tilezero"]}
    stored = {t for (t,) in found["tilestored"]}
    dots = [dot for name in names for dot in found[name]]
    sums = {dot[2] for dot in dots}
    factors = {t for dot in dots for t in dot[:2]}
    if any(len(set(dot)) < 3 for dot in dots):
        bad.append("a dot with a tile used twice")
    if sums & factors:
        bad.append(f"tiles {sorted(sums & factors)} are sums and factors")
    if not sums == stored == zeroed or sums & loaded != (sums if loads_sums else set()):
        bad.append(f"sums {sorted(sums)}, zeroed {sorted(zeroed)}, stored {sorted(stored)}, loaded {sorted(loaded)}")
    if not factors <= loaded:
        bad.append(f"factors {sorted(factors - loaded)} are never loaded")
    return bad


def self_test():
    good = ["ldtilecfg -0x40(%rsp)", "tilezero %tmm0", "tileloadd (%rdi,%rcx,1),%tmm0", "tileloadd (%rdi,%rcx,1),%tmm1",
            "tileloadd 0x40(%rsi,%rax,1),%tmm2", "tdpbusd %tmm2,%tmm1,%tmm0", "tilestored %tmm0,(%rdx,%rcx,1)",
            "tilerelease"]

    def text(lines):
        return "".join(f"  43:\tc4 e2 7b\t{line}\n" for line in lines)

    assert problems(text(good)) == []
    for i in range(len(good)):
        if i != 1 or "tilezero" in good[i]:
            assert problems(text(good[:i] + good[i + 1:])), good[i]
    assert problems(text(good + ["tdpbusd %tmm2,%tmm2,%tmm0"]))
    assert problems(text(good + ["tdpbssd %tmm2,%tmm1,%tmm0"]))
    assert problems(text(good + ["tdpbusd %tmm0,%tmm1,%tmm2"]))
    fresh = [line for line in good if not line.endswith(",1),%tmm0")]
    bf16 = [line.replace("tdpbusd", "tdpbf16ps") for line in fresh]
    assert problems(text(bf16), "attend_bf16") == []
    assert problems(text(fresh), "attend_bf16")
    assert problems(text(bf16 + [good[2]]), "attend_bf16")
    int8 = fresh + ["tdpbssd %tmm2,%tmm1,%tmm0"]
    assert problems(text(int8), "attend_int8") == []
    assert problems(text(fresh), "attend_int8")


def main(arguments):
    if arguments == ["--self-test"]:
        self_test()
        return 0
    bad = 0
    for path in arguments:
        out = subprocess.run(["objdump", "-d", path], check=True, capture_output=True, text=True)
        kind = next(kind for kind in KINDS if kind in os.path.basename(path))
        for problem in problems(out.stdout, kind):
            print(f"{path}: {problem}", file=sys.stderr)
            bad += 1
    return 1 if bad or not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
