#!/usr/bin/env python3
"""Packed files and the cache through the program: pack_test.py QLLM TINY.gguf [unittest arguments].

QLLM_TEST_MODEL, where it is there, is what is killed while it is packed; else TINY.gguf.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

QLLM = ""
TINY = ""
TIMEOUT_S = 300
SCHEMES = ["int8", "int4-g32", "int4-g128-sym", "keep"]
GENERATE = ["-p", "Hello world", "-n", 24, "--greedy", "--ignore-eos", "--quiet"]


def qllm(*arguments, env=None, **more):
    return subprocess.run([QLLM, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=TIMEOUT_S, env={**os.environ, **(env or {})}, **more)  # fmt: skip


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def content(path):
    with open(path, "rb") as file:
        return file.read()


def skip(what):
    print(f"[skipped] {what}", file=sys.stderr)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="qllm-pack-")
        self.addCleanup(self.folder.cleanup)
        self.dir = self.folder.name
        self.cache = os.path.join(self.dir, "cache", "qllm")
        self.env = {"XDG_CACHE_HOME": os.path.join(self.dir, "cache")}

    def path(self, name):
        return os.path.join(self.dir, name)

    def works(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def fails(self, result, *words):
        self.assertEqual(result.returncode, 1, result.stderr)
        first = result.stderr.decode().splitlines()[0]
        self.assertTrue(first.startswith("qllm: error: "), first)
        for word in words:
            self.assertIn(word, first)

    def pack(self, *arguments, model=None, out="m.qllm"):
        out = self.path(out)
        self.works(qllm("quantize", model or TINY, "-o", out, "--quiet", *arguments))
        return out

    def generate(self, model, *arguments, **more):
        return self.works(qllm("run", model, *GENERATE, *arguments, env=self.env, **more))

    def cached(self):
        return sorted(f for f in os.listdir(self.cache) if not f.endswith((".id", ".ok"))) if os.path.isdir(self.cache) else []


class Files(Case):
    def test_says_what_it_made(self):
        out = self.path("m.qllm")
        result = qllm("quantize", TINY, "-o", out, "--scheme", "int8", "--json")
        document = json.loads(self.works(result))
        self.assertEqual(list(document), ["bytes", "layers"])
        self.assertEqual(document["bytes"], os.path.getsize(out))
        self.assertIn("blk.0.attn_qkv", [layer["name"] for layer in document["layers"]])
        self.assertEqual(result.stderr, b"")
        info = json.loads(self.works(qllm("info", out, "--json", "--verify")))["model"]
        self.assertEqual((info["scheme"], info["rotated"]), ("int8", True))
        original = json.loads(self.works(qllm("info", TINY, "--json")))["model"]
        for key in ["architecture", "parameters", "weight_bytes", "bytes_per_token", "tied_lm_head", "tokenizer",
                    "vocab_size", "context_length", "has_chat_template"]:  # fmt: skip
            self.assertEqual(info[key], original[key], key)
        with open(out, "rb") as file:
            self.assertEqual(file.read(8), b"qllm-md\n")

    def test_same_bytes_for_any_number_of_workers(self):
        for scheme in SCHEMES:
            one = self.pack("--threads", 1, "--scheme", scheme, out="1.qllm")
            two = self.pack("--threads", 2, "--scheme", scheme, out="2.qllm")
            self.assertEqual(content(one), content(two), scheme)

    def test_same_text_as_the_gguf(self):
        for scheme in [*SCHEMES, "int8 --no-rotate"]:
            arguments = ["--scheme", *scheme.split()]
            expected = self.generate(TINY, "--no-cache", *arguments)
            packed = self.pack(*arguments)
            for memory in ["map", "copy", "hugetlb"]:
                for threads in [1, 2]:
                    with self.subTest(scheme=scheme, memory=memory, threads=threads):
                        text = self.generate(packed, "--no-cache", "--memory", memory, "--threads", threads)
                        self.assertEqual(text, expected)
            self.assertEqual(self.generate(TINY, *arguments), expected)  # into the cache
            self.assertEqual(self.generate(TINY, *arguments), expected)  # out of it
        self.assertEqual(self.cached(), sorted(self.cached()))

    def test_knows_its_own_scheme(self):
        packed = self.pack("--scheme", "int4-g32")
        self.fails(qllm("run", packed, "-p", "x", "--scheme", "int8"), "packed as int4-g32")
        self.fails(qllm("run", packed, "-p", "x", "--device", "reference"), "packed file runs on the cpu")
        self.fails(qllm("quantize", packed, "-o", self.path("n.qllm")), "is packed already")
        rotated = self.pack()
        self.fails(qllm("run", rotated, "-p", "x", "--no-rotate"), "rotated")

    def test_sessions_pass_between_gguf_and_packed(self):
        packed = self.pack()
        saved = self.path("session")
        self.generate(TINY, "--no-cache", "--save-session", saved)
        again = qllm("run", packed, *GENERATE, "--load-session", saved, "--json")
        self.assertGreater(json.loads(self.works(again))["reused_tokens"], 0)

    def test_other_commands_read_it(self):
        packed = self.pack()
        for command in [["tokenize", "-p", "Hello"], ["detokenize", "--ids", "1,2,30"]]:
            self.assertEqual(self.works(qllm(command[0], packed, *command[1:])),
                             self.works(qllm(command[0], TINY, *command[1:])))  # fmt: skip

    def test_a_flipped_bit_is_found_and_named(self):
        packed = self.pack("--threads", 1)
        whole = content(packed)
        expected = self.generate(packed)
        places = random.Random(5).sample(range(len(whole)), 40) + [0, 9, 20, 100, 4100, len(whole) - 1]
        named = 0
        for at in places:
            flip(packed, at)
            result = qllm("run", packed, *GENERATE)
            if result.returncode == 0:  # a byte of padding
                self.assertEqual(result.stdout, expected)
                self.assertEqual(whole[at], 0, at)
            else:
                self.fails(result, "m.qllm")
                named += b"tensor" in result.stderr and b"checksum" in result.stderr
            flip(packed, at)
        self.assertGreater(named, 20)
        flip(packed, len(whole) - 1)
        self.fails(qllm("info", packed, "--verify"), "tensor lm_head", "checksum")
        self.fails(qllm("run", packed, "-p", "x", "--memory", "copy"), "tensor lm_head", "checksum")

    def test_cut_short(self):
        packed = self.pack()
        whole = content(packed)
        for length in [0, 7, 8, 50, 103, 104, 4096, len(whole) // 2, len(whole) - 1]:
            with open(packed, "wb") as file:
                file.write(whole[:length])
            self.fails(qllm("run", packed, "-p", "x"), "m.qllm")


class Interrupted(Case):
    def model(self):
        real = os.environ.get("QLLM_TEST_MODEL", "")
        return real if os.path.exists(real) else TINY

    def test_killed_at_20_moments(self):
        model = self.model()
        begin = time.monotonic()
        expected = content(self.pack(model=model, out="whole.qllm"))
        whole_s = time.monotonic() - begin
        moments = random.Random(7)
        out = self.path("m.qllm")
        for _ in range(20):
            process = subprocess.Popen([QLLM, "quantize", model, "-o", out, "--quiet"], stderr=subprocess.DEVNULL)
            time.sleep(moments.uniform(0, whole_s))
            process.kill()
            process.wait()
            left = set(os.listdir(self.dir)) - {"whole.qllm"}
            self.assertLessEqual(left, {"m.qllm", "m.qllm.part"})
            if "m.qllm" in left:
                self.assertEqual(content(out), expected)
                os.remove(out)
        self.works(qllm("quantize", model, "-o", out, "--quiet"))
        self.assertEqual(content(out), expected)
        self.assertEqual(set(os.listdir(self.dir)), {"m.qllm", "whole.qllm"})

    def test_ctrl_c_leaves_nothing(self):
        model = self.model()
        process = subprocess.Popen([QLLM, "quantize", model, "-o", self.path("m.qllm")], stderr=subprocess.PIPE)
        while not os.path.exists(self.path("m.qllm.part")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        if process.returncode == 0:
            return skip("Ctrl-C while packing: the model was packed too soon")
        self.assertEqual(process.returncode, 130)
        self.assertEqual(os.listdir(self.dir), [])

    def test_what_stood_there_stays_until_the_end(self):
        out = self.pack()
        before = content(out)
        result = qllm("quantize", TINY, "-o", out, "--scheme", "keep",
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))  # fmt: skip
        self.fails(result, "m.qllm")
        self.assertEqual(content(out), before)
        self.assertEqual(os.listdir(self.dir), ["m.qllm"])

    def test_full_disk(self):
        disk = self.path("disk")
        os.mkdir(disk)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
        if mounted.returncode != 0:
            return skip("full disk: no right to mount one")
        try:
            self.fails(qllm("quantize", TINY, "-o", os.path.join(disk, "m.qllm")), "No space left on device")
            self.assertEqual(os.listdir(disk), [])
            result = qllm("run", TINY, *GENERATE[:-1], env={"XDG_CACHE_HOME": disk})
            self.works(result)
            self.assertEqual(result.stderr.count(b"cache:"), 1, result.stderr)
            self.assertEqual([f for f in os.listdir(os.path.join(disk, "qllm")) if not f.endswith(".id")], [])
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_where_nothing_can_be_made(self):
        self.fails(qllm("quantize", TINY, "-o", self.path("no/m.qllm")), "no/m.qllm")
        self.fails(qllm("quantize", TINY, "-o", TINY), "would be overwritten")


class Cache(Case):
    def test_made_once_and_reused(self):
        expected = self.generate(TINY, "--no-cache")
        self.assertFalse(os.path.exists(self.cache))
        self.assertEqual(self.generate(TINY), expected)
        files = self.cached()
        self.assertEqual(len(files), 1)
        before = os.stat(os.path.join(self.cache, files[0]))
        self.assertEqual(before.st_mode & 0o777, 0o600)
        self.assertEqual(self.generate(TINY, "--threads", 1), expected)
        after = os.stat(os.path.join(self.cache, files[0]))
        self.assertEqual((before.st_ino, before.st_size), (after.st_ino, after.st_size))
        copy = self.path("elsewhere.gguf")
        with open(copy, "wb") as file:
            file.write(content(TINY))
        self.assertEqual(self.generate(copy), expected)
        self.assertEqual(self.cached(), files)  # by content, not by name
        bench = json.loads(self.works(qllm("bench", TINY, "--prompt", 8, "--gen", 4, "--repeat", 1, "--json", env=self.env)))
        self.assertEqual(bench["memory"], "map")
        direct = ["--prompt", 8, "--gen", 4, "--repeat", 1, "--json", "--no-cache"]
        self.assertEqual(json.loads(self.works(qllm("bench", TINY, *direct)))["memory"], "copy")

    def test_another_model_under_the_same_name(self):
        model = self.path("m.gguf")
        whole = content(TINY)
        with open(model, "wb") as file:
            file.write(whole)
        first = self.generate(model)
        flip(model, len(whole) - 1000)
        self.assertEqual(self.generate(model), self.generate(model, "--no-cache"))
        self.assertEqual(len(self.cached()), 2)
        flip(model, len(whole) - 1000)
        self.assertEqual(self.generate(model), first)
        self.assertEqual(len(self.cached()), 2)

    def test_two_processes_at_once(self):
        expected = self.generate(TINY, "--no-cache")
        environment = {**os.environ, **self.env}
        both = [subprocess.Popen([QLLM, "run", TINY, *map(str, GENERATE)], stdin=subprocess.DEVNULL, env=environment,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]  # fmt: skip
        for process in both:
            out, err = process.communicate(timeout=TIMEOUT_S)
            self.assertEqual((process.returncode, out, err), (0, expected, b""))
        self.assertEqual(len(self.cached()), 1)

    def test_the_cap_evicts_what_was_used_longest_ago(self):
        self.generate(TINY, "--scheme", "int8")
        first = self.cached()
        size = os.path.getsize(os.path.join(self.cache, first[0]))
        long_ago = time.time() - 1000
        os.utime(os.path.join(self.cache, first[0]), (long_ago, long_ago))
        self.generate(TINY, "--scheme", "int4-g32")
        self.assertEqual(len(self.cached()), 2)
        self.generate(TINY, "--scheme", "int4-g64", "--cache-size", 2 * size)
        left = self.cached()
        self.assertNotIn(first[0], left)
        self.assertLessEqual(sum(os.path.getsize(os.path.join(self.cache, f)) for f in left), 2 * size)
        result = qllm("run", TINY, *GENERATE[:-1], "--scheme", "keep", "--cache-size", "4096", env=self.env)
        self.works(result)
        self.assertIn(b"more than the cache's", result.stderr)
        self.assertEqual(self.cached(), left)

    def test_a_damaged_copy_is_made_anew(self):
        expected = self.generate(TINY)
        copy = os.path.join(self.cache, self.cached()[0])
        whole = content(copy)
        for at in [3, 8, 60, 4200, len(whole) - 1000, len(whole) - 1]:
            flip(copy, at)
            result = qllm("run", TINY, *GENERATE[:-1], env=self.env)
            self.assertEqual(self.works(result), expected)
            self.assertEqual(content(copy), whole)
        flip(copy, len(whole) - 1)
        result = qllm("run", TINY, *GENERATE[:-1], env=self.env)
        lines = [line for line in result.stderr.decode().splitlines() if "cache:" in line]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn("tensor lm_head", lines[0])
        self.assertIn("made anew", lines[0])

    def test_a_copy_is_compared_again_once_it_was_touched(self):
        expected = self.generate(TINY)
        copy = os.path.join(self.cache, self.cached()[0])
        self.assertFalse(os.path.exists(copy + ".ok"))  # it changed a moment ago
        time.sleep(3.1)
        self.assertEqual(self.generate(TINY), expected)
        with open(copy + ".ok", encoding="ascii") as file:
            mark = file.read()
        self.assertEqual(self.generate(TINY), expected)
        before = os.stat(copy)
        flip(copy, before.st_size - 1)
        os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of its change still tells
        result = qllm("run", TINY, *GENERATE[:-1], env=self.env)
        self.assertEqual(self.works(result), expected)
        self.assertIn(b"made anew", result.stderr)
        with open(copy + ".ok", "w", encoding="ascii") as file:
            file.write(mark)  # of the copy that is gone
        flip(copy, before.st_size - 1)
        result = qllm("run", TINY, *GENERATE[:-1], env=self.env)
        self.assertEqual(self.works(result), expected)
        self.assertIn(b"made anew", result.stderr)

    def test_a_folder_that_cannot_be_written(self):
        with open(self.path("file"), "wb"):
            pass
        result = qllm("run", TINY, *GENERATE[:-1], env={"XDG_CACHE_HOME": self.path("file")})
        self.assertEqual(self.works(result), self.generate(TINY, "--no-cache"))
        self.assertEqual(result.stderr.count(b"cache:"), 1, result.stderr)

    def test_killed_writers_leave_nothing_for_long(self):
        os.makedirs(self.cache)
        with open(os.path.join(self.cache, "0123-int8.qllm.part"), "wb") as file:
            file.write(b"half")
        self.generate(TINY)
        self.assertEqual(len(self.cached()), 1)
        self.assertTrue(self.cached()[0].endswith(".qllm"))


if __name__ == "__main__":
    QLLM, TINY = sys.argv[1:3]
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
