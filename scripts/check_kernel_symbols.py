#!/usr/bin/env python3
"""Fails where an object of an instruction-set tier defines a symbol that other objects could share.

    check_kernel_symbols.py TIER=OBJECT[:OBJECT...] ...
    check_kernel_symbols.py --self-test

Of a weak (COMDAT) symbol that many objects define the linker keeps one. Were that the one compiled
for AVX-512, code for any PC would call it. So a tier's objects define strong symbols in the tier's
namespace, and weak ones only if their name carries that namespace or the tier's xsimd architecture.
"""
import subprocess
import sys

# Mangled pieces of a name that make it the tier's own.
TAGS = {
    "avx2": ("4qllm3cpu4avx2", "4fma3INS_4avx2E", "4fma3IN5xsimd4avx2E"),
    "avxvnni": ("4qllm3cpu7avxvnni",),
    "amx": ("4qllm3cpu3amx",),
    "avx512vnni": ("4qllm3cpu10avx512vnni", "5xsimd8avx512bw", "S_8avx512bw"),
}


def shared_symbols(tier, nm_output):
    """Names in the output of `nm --defined-only` that are not the tier's own."""
    found = []
    for line in nm_output.splitlines():
        fields = line.split()
        if len(fields) != 3:
            continue
        kind, name = fields[1], fields[2]
        local = kind.islower() and kind not in "vwu"
        if not local and not any(tag in name for tag in TAGS[tier]):
            found.append(f"{kind} {name}")
    return found


def self_test():
    own = "0000 T _ZN4qllm3cpu4avx23fooEv\n0000 W _ZN5xsimd3addIfNS_4fma3INS_4avx2EEEEEvv\n0000 t local\n"
    assert shared_symbols("avx2", own) == []
    for kind in "WVuT":
        assert shared_symbols("avx2", f"0000 {kind} _ZSt3maxIfERKT_S2_S2_") != []
    assert shared_symbols("avx2", "0000 W _ZN5xsimd3absIfNS_6sse4_2EEEvv") != []
    assert shared_symbols("avxvnni", own) != []


def main(arguments):
    if arguments == ["--self-test"]:
        self_test()
        return 0
    bad = 0
    for argument in arguments:
        tier, objects = argument.split("=", 1)
        for path in objects.split(":"):
            out = subprocess.run(["nm", "--defined-only", path], check=True, capture_output=True, text=True)
            for symbol in shared_symbols(tier, out.stdout):
                print(f"{path}: not of tier {tier}: {symbol}", file=sys.stderr)
                bad += 1
    return 1 if bad or not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
