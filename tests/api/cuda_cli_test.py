#!/usr/bin/env python3
"""The program on a GPU, emulated: cuda_cli_test.py QLLM TINY_MODEL PLUGIN [unittest options]

PLUGIN is the library that stands for libqllm_cuda.so (tests/support/cuda_host). QLLM_EMULATED_GPU
takes the driver, the GPU or most of its memory away.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

QLLM, MODEL, PLUGIN = sys.argv[1:4]
PROMPT = ["-p", "a b c d e f", "-n", "12", "--greedy"]


def run(*arguments, gpu="", plugin=PLUGIN):
    env = dict(os.environ, QLLM_CUDA_PLUGIN=plugin, QLLM_EMULATED_GPU=gpu)
    return subprocess.run([QLLM, *map(str, arguments)], env=env, capture_output=True, text=True,
                          timeout=600, check=False)


def text_of(*arguments, **options):
    """The greedy text of the tiny model."""
    done = run("run", MODEL, *PROMPT, "--no-cache", "--json", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["text"]


class Cuda(unittest.TestCase):
    def assert_fails(self, done, words):
        self.assertEqual(done.returncode, 1, done.stderr)
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("qllm: error: "), lines[0])
        self.assertIn(words, lines[0])
        self.assertEqual(done.stdout, "")

    def test_the_text_is_the_cpus(self):
        for scheme in ("int8", "int4-g32"):
            cpu = text_of("--device", "cpu", "--scheme", scheme)
            self.assertEqual(text_of("--device", "cuda", "--scheme", scheme), cpu)
            self.assertEqual(text_of("--scheme", scheme), cpu)  # auto

    def test_a_packed_file_and_the_cache(self):
        with tempfile.TemporaryDirectory() as folder:
            packed = os.path.join(folder, "tiny.qllm")
            self.assertEqual(run("quantize", MODEL, "-o", packed, "--device", "cpu").returncode, 0)
            cpu = json.loads(run("run", packed, *PROMPT, "--json", "--device", "cpu").stdout)
            gpu = json.loads(run("run", packed, *PROMPT, "--json", "--device", "cuda").stdout)
            self.assertEqual(gpu["text"], cpu["text"])
            with open(packed, "r+b") as f:  # a flipped bit is found on the way to the device
                f.seek(os.path.getsize(packed) - 1)
                byte = f.read(1)
                f.seek(os.path.getsize(packed) - 1)
                f.write(bytes([byte[0] ^ 4]))
            self.assert_fails(run("run", packed, *PROMPT, "--device", "cuda"),
                              "tensor lm_head")

    def test_layers_are_shared_with_the_cpu(self):
        cpu = text_of("--device", "cpu")
        for layers in ("0", "1", "2", "auto"):
            self.assertEqual(text_of("--device", "cuda", "--gpu-layers", layers), cpu)

    def test_info_names_the_gpu(self):
        done = run("info", "--device", "cuda")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("emulated device", done.stdout)

    def test_what_is_missing_is_named(self):
        self.assert_fails(run("run", MODEL, *PROMPT, "--device", "cuda", gpu="no-driver"),
                          "device cuda: no NVIDIA driver was found")
        self.assert_fails(run("run", MODEL, *PROMPT, "--device", "cuda", gpu="no-gpu"),
                          "device cuda: the driver finds no GPU")
        self.assert_fails(run("run", MODEL, *PROMPT, "--device", "cuda", plugin="/no/such.so"),
                          "device cuda: its library cannot be loaded: /no/such.so")
        self.assert_fails(run("run", MODEL, *PROMPT, "--device", "cuda", plugin=QLLM),
                          "device cuda: ")

    def test_auto_goes_on_with_the_cpu(self):
        cpu = text_of("--device", "cpu")
        for gpu in ("no-driver", "no-gpu", "bytes=100000"):
            self.assertEqual(text_of("--device", "auto", gpu=gpu), cpu)
        self.assertEqual(text_of("--device", "auto", plugin="/no/such.so"), cpu)

    def test_no_memory_for_the_layers_asked_for(self):
        done = run("run", MODEL, *PROMPT, "--no-cache", "--device", "cuda", "--gpu-layers", "2",
                   gpu="bytes=100000")
        self.assert_fails(done, "no memory for")

    def test_the_trace_has_a_track_of_the_gpu(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "trace.json")
            text_of("--device", "cuda", "--trace", path)
            with open(path, encoding="utf-8") as f:
                events = json.load(f)["traceEvents"]
        tracks = {e["args"]["name"]: (e["pid"], e["tid"]) for e in events
                  if e["ph"] == "M" and e["name"] == "thread_name"}
        self.assertIn("gpu 0", tracks)
        spans = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == tracks["gpu 0"]]
        names = {e["name"] for e in spans}
        self.assertTrue(any("attention" in name for name in names), names)
        self.assertTrue(any("quantize" in name for name in names), names)

    def test_bench(self):
        done = run("bench", MODEL, "--device", "cuda", "--prompt", "8", "--gen", "2", "--repeat", "1",
                   "--no-cache", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(json.loads(done.stdout)["decode"]["tokens_per_s"], 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
