#!/usr/bin/env python3
"""Includes point one way (docs: "The house"): check_includes.py [--self-test]

Each folder below names the folders that it may include beside itself. `lib/include` is included as
"qllm/...", the others by their path below lib/ or backends/. Nothing in lib/ may see backends/.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = {"include", "core"}
BACKEND = CORE | {"graph", "backend", "quant"}
MAY_INCLUDE = {
    "lib/include": set(),
    "lib/core": {"include"},
    "lib/text": CORE,
    "lib/graph": CORE,
    "lib/backend": CORE | {"graph", "quant"},
    "lib/quant": CORE,
    "lib/model": BACKEND | {"text"},  # text: the vocabulary that a model file carries
    "lib/engine": BACKEND | {"text", "model"},
    "lib/roofline": CORE | {"quant"},
    "backends/reference": BACKEND,
    "backends/cpu": BACKEND,
    "backends/cpu/kernels": {"quant", "core", "include"},
    "backends/cuda": BACKEND,
    "backends/hybrid": BACKEND,
    "apps": {"include"},
    "examples": {"include"},
}
# The only file that names all backends.
EXCEPTIONS = {"backends/make_backend.cpp": BACKEND | {"reference", "cpu", "cuda", "hybrid"}}
LIB = {"core", "text", "graph", "backend", "quant", "model", "engine", "roofline"}
# Public headers stand alone: no third-party type in them.
THIRD_PARTY = re.compile(r"<(fmt|nlohmann|xsimd|hwloc|pcre2|CLI|spdlog|oneapi|dnnl|omp|simde|cuda)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
SUFFIXES = {".h", ".hpp", ".c", ".cpp", ".cu", ".inc"}


def folder_of(path):
    """The longest folder of MAY_INCLUDE that `path` (relative, posix) lies in, or None."""
    fits = [f for f in MAY_INCLUDE if path.startswith(f + "/")]
    return max(fits, key=len) if fits else None


def target_of(include, path):
    """The folder of the house that a quoted include leads to, or None for a file beside."""
    first = include.split("/")[0]
    if first == "qllm":
        return "include"
    if first in LIB and "/" in include:
        return first
    if first in ("reference", "cuda", "hybrid") and "/" in include:
        return first
    if path.startswith(("backends/cpu/", "backends/cuda/")):
        return None  # its own folders: kernels/, ops/, onednn/
    if first == "cpu" or first == "kernels" or first == "backends":
        return "cpu"
    return None


def check_text(path, text):
    """Yields what is wrong with the includes of the file `path` (relative, posix)."""
    folder = folder_of(path)
    allowed = EXCEPTIONS.get(path, MAY_INCLUDE.get(folder))
    if allowed is None:
        return
    own = folder.split("/")[1] if folder and "/" in folder else folder
    if folder == "backends/cpu/kernels":
        own = "cpu"
    for match in INCLUDE.finditer(text):
        bracket, include = match.groups()
        line = text.count("\n", 0, match.start(2)) + 1
        if bracket == "<":
            if folder == "lib/include" and THIRD_PARTY.match("<" + include):
                yield f"{path}:{line}: a public header includes <{include}>"
            continue
        if ".." in include.split("/"):
            yield f'{path}:{line}: "{include}" climbs out of its folder'
        target = target_of(include, path)
        if target is not None and target != own and target not in allowed:
            yield f'{path}:{line}: {folder or path} must not include "{include}" ({target})'


def self_test():
    wrong = {
        "lib/core/a.h": '#include "graph/graph.h"',
        "lib/backend/a.h": '#include "model/config.h"',
        "lib/engine/a.cpp": '#include "cpu/plan.h"',
        "backends/reference/a.cpp": '#include "cpu/plan.h"',
        "backends/cpu/plan.cpp": '#include "reference/plan.h"',
        "backends/cpu/ops/a.cpp": '#include "model/config.h"',
        "backends/hybrid/a.cpp": '#include "cpu/plan.h"',
        "apps/a.cpp": '#include "engine/engine.h"',
        "apps/b.cpp": '#include "roofline/count.h"',
        "lib/roofline/a.cpp": '#include "backend/backend.h"',
        "lib/include/qllm/a.hpp": "#include <fmt/format.h>",
        "lib/text/a.cpp": '#include "../model/gguf.h"',
    }
    right = {
        "lib/engine/a.cpp": '#include "model/config.h"\n#include <fmt/format.h>',
        "backends/cpu/ops/a.cpp": '#include "kernels/dot.h"\n#include "graph/graph.h"',
        "backends/make_backend.cpp": '#include "cpu/plan.h"\n#include "reference/plan.h"',
        "apps/a.cpp": '#include "qllm/qllm.hpp"\n#include "progress.h"',
        "lib/include/qllm/qllm.hpp": '#include "qllm/error.hpp"\n#include <string>',
    }
    missed = [p for p, t in wrong.items() if not list(check_text(p, t))]
    blamed = [e for p, t in right.items() for e in check_text(p, t)]
    for line in [f"not found: {p}" for p in missed] + blamed:
        print(line)
    return 1 if missed or blamed else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    errors, count = [], 0
    for top in ("lib", "backends", "apps", "examples"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                count += 1
                relative = path.relative_to(ROOT).as_posix()
                errors += check_text(relative, path.read_text(encoding="utf-8"))
    for error in errors:
        print(error)
    print(f"{count} files, {len(errors)} wrong includes")
    return 1 if errors or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
