#!/usr/bin/env python3
"""What libqllm.so exports is the public API and nothing else: check_symbols.py LIBRARY HEADER_DIR.

Allowed are C functions `qllm_*` and C++ names in namespace qllm whose first part stands in a public
header.
"""

import re
import subprocess
import sys
from pathlib import Path


def exported(library):
    """(symbol, demangled name) of each defined dynamic symbol."""
    lines = subprocess.run(["nm", "-D", "--defined-only", "--format=posix", library], check=True,
                           capture_output=True, text=True).stdout.splitlines()
    symbols = [line.split()[0].split("@")[0] for line in lines]
    names = subprocess.run(["c++filt"], input="\n".join(symbols), check=True, capture_output=True,
                           text=True).stdout.splitlines()
    return list(zip(symbols, names))


def is_public(symbol, name, header_words):
    if symbol.startswith("qllm_"):
        return symbol in header_words
    match = re.match(r"(?:typeinfo for |typeinfo name for |vtable for )?qllm::(\w+)", name)
    return bool(match) and match.group(1) in header_words


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    text = "".join(p.read_text() for p in sorted(Path(sys.argv[2]).glob("qllm/*.h*")))
    words = set(re.findall(r"\w+", text))
    symbols = exported(sys.argv[1])
    strangers = [name for symbol, name in symbols if not is_public(symbol, name, words)]
    for name in strangers:
        print(f"{sys.argv[1]}: exports {name}, which no public header declares")
    missing = {"qllm::version()"} - {re.sub(r"\[abi:\w+\]", "", name) for _, name in symbols}
    for name in missing:
        print(f"{sys.argv[1]}: does not export {name}")
    print(f"{len(symbols)} exported symbols")
    return 1 if strangers or missing else 0


if __name__ == "__main__":
    sys.exit(main())
