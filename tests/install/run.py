#!/usr/bin/env python3
"""Installs libqllm into a fresh prefix and uses it as a stranger would (ctest `api_install`).

run.py BUILD SOURCE VERSION [--cc CC] [--cxx CXX] [--model MODEL]

 * the installed files are the ones promised, and the soname is libqllm.so.0;
 * find_package(qllm) works for the shared and for the static library;
 * pkg-config works for C11 programs;
 * every program of examples/ builds and, with a model, prints text.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROMISED = ["include/qllm/qllm.hpp", "include/qllm/error.hpp", "{lib}/libqllm.a", "{lib}/libqllm.so",
            "{lib}/libqllm.so.0", "{lib}/cmake/qllm/qllmConfig.cmake", "{lib}/pkgconfig/qllm.pc"]


def run(*command, **options):
    """Standard output of the command; its errors are shown and end the test."""
    print("+", " ".join(map(str, command)), flush=True)
    result = subprocess.run([str(c) for c in command], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT if options.pop("merge", False) else None, **options)
    if result.returncode != 0:
        print(result.stdout)
        sys.exit(f"failed with status {result.returncode}")
    return result.stdout


def check_files(prefix):
    lib = next(prefix.glob("lib*/**/libqllm.a")).parent
    relative = lib.relative_to(prefix)
    for name in PROMISED:
        path = prefix / name.format(lib=relative)
        if not path.exists():
            sys.exit(f"not installed: {path.relative_to(prefix)}")
    if "[libqllm.so.0]" not in run("readelf", "-d", lib / "libqllm.so"):
        sys.exit("libqllm.so: its soname is not libqllm.so.0")
    return lib


def check_output(program, expected, environment):
    found = run(program, env=environment).strip()
    if found != expected:
        sys.exit(f"{program}: expected {expected!r}, found {found!r}")


def run_example(program, model, environment):
    if model is None or not Path(model).exists():
        print(f"[skipped] {program.name}: no model file")
        return
    text = run(program, model, env=environment)
    if not text.strip():
        sys.exit(f"{program.name}: printed no text")


def c_programs(source):
    programs = [source / "tests/install/main.c"] if (source / "lib/include/qllm/qllm.h").exists() else []
    return programs + sorted((source / "examples").glob("*.c"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("version")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--model")
    args = parser.parse_args()

    work = args.build / "install-test"
    shutil.rmtree(work, ignore_errors=True)
    prefix, consumer = work / "prefix", work / "consumer"
    run("cmake", "--install", args.build, "--prefix", prefix)
    lib = check_files(prefix)
    # Nothing of the build tree may be needed: no LD_LIBRARY_PATH, no hint but the prefix.
    clean = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}

    run("cmake", "-S", args.source / "tests/install", "-B", consumer, "-G", "Ninja",
        f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_CXX_COMPILER={args.cxx}",
        f"-DCMAKE_C_COMPILER={args.cc}", f"-DEXAMPLES_DIR={args.source / 'examples'}", env=clean)
    run("cmake", "--build", consumer, env=clean)
    check_output(consumer / "consumer_shared", args.version, clean)
    check_output(consumer / "consumer_static", args.version, clean)
    for program in sorted(consumer.glob("example_cpp_*")):
        if program.is_file() and os.access(program, os.X_OK):
            run_example(program, args.model, clean)

    clean["PKG_CONFIG_PATH"] = str(lib / "pkgconfig")
    if run("pkg-config", "--modversion", "qllm", env=clean).strip() != args.version:
        sys.exit("qllm.pc: wrong version")
    flags = run("pkg-config", "--cflags", "--libs", "qllm", env=clean).split()
    for source in c_programs(args.source):
        program = consumer / ("example_c_" + source.stem)
        run(args.cc, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", program, source, *flags,
            f"-Wl,-rpath,{lib}", env=clean)
        if source.parent.name == "install":
            check_output(program, args.version, clean)
        else:
            run_example(program, args.model, clean)

    program = prefix / "bin/qllm"
    if program.exists() and args.version not in run(program, "--version", env=clean):
        sys.exit("the installed program does not print its version")


if __name__ == "__main__":
    main()
