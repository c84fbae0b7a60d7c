#!/usr/bin/env python3
"""The program qllm as scripts and people see it: cli_test.py QLLM TINY.gguf [unittest arguments].

TINY.gguf is the model of make_tiny_model: random weights, 300 tokens, ChatML, a context of 256.
"""

import array
import html
import json
import math
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

QLLM = ""
TINY = ""
LONG = ""  # the same model with a context so long that generating takes a while
WORK = ""
COMMANDS = ["run", "chat", "tokenize", "detokenize", "template", "logits", "info", "quantize", "bench", "perplexity", "roofline"]
LONG_CONTEXT = 60000
TIMEOUT_S = 120


def qllm(*arguments, stdin=b"", **more):
    """Runs to the end; bytes in, bytes out."""
    return subprocess.run([QLLM, *map(str, arguments)], input=stdin, capture_output=True, timeout=TIMEOUT_S, **more)


def start(*arguments, **more):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen([QLLM, *map(str, arguments)], **streams)


def long_run(*arguments, **more):
    """A run that goes on for as long as the test needs."""
    return start("run", LONG, "-p", "Hello world", "-n", -1, "-c", LONG_CONTEXT, "--ignore-eos", *arguments, **more)


def path(name, content=None):
    full = os.path.join(WORK, name)
    if content is not None:
        with open(full, "wb") as file:
            file.write(content)
    return full


def with_long_context(model):
    """The bytes of a GGUF file with another llama.context_length (u32: type 4, then the value)."""
    key = b"llama.context_length"
    at = model.index(key) + len(key)
    assert model[at : at + 4] == (4).to_bytes(4, "little")
    return model[: at + 4] + LONG_CONTEXT.to_bytes(4, "little") + model[at + 8 :]


def read_npy(name):
    """(shape, values) of a float32 file; the header is checked as NumPy's format has it."""
    with open(name, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length]
    assert (10 + length) % 64 == 0 and header.endswith(b"\n")
    fields = eval(header, {"__builtins__": {}})  # a literal of our own making
    assert fields["descr"] == "<f4" and fields["fortran_order"] is False
    values = array.array("f", data[10 + length :])
    return fields["shape"], values


class Case(unittest.TestCase):
    def fails(self, result, status, *words):
        self.assertEqual(result.returncode, status, result.stderr)
        first = result.stderr.decode().splitlines()[0]
        self.assertTrue(first.startswith("qllm: error: "), first)
        for word in words:
            self.assertIn(word, first)
        self.assertEqual(result.stdout, b"")

    def works(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def json(self, result):
        return json.loads(self.works(result))


class Usage(Case):
    def test_help_and_version(self):
        self.assertRegex(self.works(qllm("--version")).decode(), r"^qllm \d+\.\d+\.\d+\n$")
        overview = self.works(qllm("--help")).decode()
        for command in COMMANDS:
            self.assertIn(command, overview)
            text = self.works(qllm(command, "--help")).decode()
            self.assertIn("qllm " + command, text)
            self.assertIn("--device", text)

    def test_wrong_usage_is_2(self):
        wrong = [
            [], ["serve", TINY], ["frobnicate"], ["run"], ["run", TINY, "-p", "x", "--frobnicate"],
            ["run", TINY, "-p", "x", "-f", "y"], ["run", TINY, "-p", "x", "-n", "abc"],
            ["run", TINY, "-p", "x", "--temp", "-1"], ["run", TINY, "-p", "x", "--top-p", "2"],
            ["run", TINY, "-p", "x", "--seed", "-1"], ["run", TINY, "-p", "x", "--device", "abacus"],
            ["run", TINY, "-p", "x", "--device", "cpu+abacus"], ["run", TINY, "-p", "x", "--device", "cpu+"],
            ["run", TINY, "-p", "x", "--gpu-layers", "-1"], ["run", TINY, "-p", "x", "--gpu-layers", "many"],
            ["run", TINY, "-p", "x", "--gpu-layers", "1.5"], ["run", TINY, "-p", "x", "--gpu-layers", "9" * 20],
            ["run", TINY, "-p", "x", "--threads", "-1"], ["run", TINY, "-p"], ["run", TINY, "nonsense"],
            ["detokenize", TINY], ["logits", TINY, "--ids", "1"], ["bench"], ["bench", TINY, "--synthetic", "vocab=9"],
            ["bench", "--synthetic", "depth=3"], ["bench", "--synthetic", "vocab=x"], ["bench", TINY, "--threads", "a"],
            ["bench", TINY, "--json", "--csv"], ["quantize", TINY],
            ["run", TINY, "-p", "x", "--memory", "cloud"], ["run", TINY, "-p", "x", "--cache-size", "0"], ["perplexity", TINY], ["template", TINY],
        ]  # fmt: skip
        for arguments in wrong:
            with self.subTest(arguments=arguments):
                self.fails(qllm(*arguments), 2)


class Run(Case):
    def test_streams_text_and_says_how_fast(self):
        result = qllm("run", TINY, "-p", "Hello", "-n", 16, "--greedy", "--ignore-eos")
        text = self.works(result)
        self.assertTrue(text.endswith(b"\n"))
        text.decode()  # never half a UTF-8 sequence
        self.assertRegex(result.stderr.decode(), r"^qllm: prompt \d+ tokens, first token [\d.]+ s; 16 tokens at [\d.]+ tok/s = ")
        self.assertNotIn(b"\x1b", result.stdout + result.stderr)
        self.assertNotIn(b"\r", result.stderr)

    def test_json_keys(self):
        arguments = ["run", TINY, "-p", "Hello", "-n", 16, "--greedy", "--ignore-eos"]
        document = self.json(qllm(*arguments, "--json"))
        self.assertEqual(list(document), [
            "text", "prompt_tokens", "reused_tokens", "generated_tokens", "ttft_ms", "decode_tokens_per_s",
            "decode_gbps", "ceiling_gbps", "percent_of_ceiling", "finish_reason"])  # fmt: skip
        self.assertEqual(document["generated_tokens"], 16)
        self.assertEqual(document["finish_reason"], "length")
        self.assertAlmostEqual(document["percent_of_ceiling"], 100 * document["decode_gbps"] / document["ceiling_gbps"])
        plain = self.works(qllm(*arguments)).decode()
        self.assertEqual(plain.rstrip("\n"), document["text"].rstrip("\n"))

    def test_quiet_says_and_measures_nothing(self):
        result = qllm("run", TINY, "-p", "Hello", "-n", 4, "--quiet", "--json")
        self.assertIsNone(self.json(result)["ceiling_gbps"])
        self.assertEqual(result.stderr, b"")

    def test_every_way_to_give_the_text(self):
        tail = ["-n", 12, "--greedy", "--quiet"]
        expected = self.works(qllm("run", TINY, "-p", "Hello world", *tail))
        self.assertEqual(self.works(qllm("run", TINY, "-f", path("p.txt", b"Hello world"), *tail)), expected)
        self.assertEqual(self.works(qllm("run", TINY, "-", *tail, stdin=b"Hello world")), expected)
        self.assertEqual(self.works(qllm("run", TINY, *tail, stdin=b"Hello world")), expected)
        self.assertEqual(self.works(qllm("run", TINY, "-f", "-", *tail, stdin=b"Hello world")), expected)

    def test_seed_makes_it_repeatable(self):
        arguments = ["run", TINY, "-p", "Hello", "-n", 32, "--temp", 2, "--ignore-eos", "--quiet"]
        one = self.works(qllm(*arguments, "--seed", 7))
        self.assertEqual(one, self.works(qllm(*arguments, "--seed", 7)))
        self.assertNotEqual(one, self.works(qllm(*arguments, "--seed", 8)))

    def test_stops_where_the_context_is_full(self):
        document = self.json(qllm("run", TINY, "-p", "Hello", "-n", -1, "-c", 32, "--ignore-eos", "--json"))
        self.assertEqual(document["finish_reason"], "context_full")
        self.assertIn(document["generated_tokens"] + document["prompt_tokens"], (32, 33))

    def test_a_session_in_a_file(self):
        saved = path("saved-session")
        prompt = "Hello world, how are you"
        arguments = ["run", TINY, "-p", prompt, "-n", 8, "--greedy", "--ignore-eos", "--quiet", "--json"]
        first = self.json(qllm(*arguments, "--save-session", saved))
        second = self.json(qllm(*arguments, "--load-session", saved))
        self.assertEqual(first["reused_tokens"], 0)
        self.assertEqual(second["reused_tokens"], second["prompt_tokens"] - 1)
        self.assertEqual(second["text"], first["text"])
        self.fails(qllm(*arguments, "--load-session", saved, "--device", "reference"), 1, saved, "KV format")
        self.fails(qllm(*arguments, "--load-session", path("absent-session")), 1, "absent-session")
        with open(saved, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            byte = file.read(1)
            file.seek(-100, os.SEEK_END)
            file.write(bytes([byte[0] ^ 1]))
        self.fails(qllm(*arguments, "--load-session", saved), 1, saved, "damaged")

    def test_memory_for_keys_and_values(self):
        arguments = ["run", TINY, "-p", "Hello", "-n", 200, "--greedy", "--ignore-eos", "--quiet", "--json"]
        # tiny.gguf: 2 layers, 2 KV heads of 16, 2 bytes: 256 bytes a token, 16 KiB a block of 64 tokens.
        document = self.json(qllm(*arguments, "--kv-memory", "16KB"))
        self.assertEqual(document["finish_reason"], "context_full")
        self.assertEqual(document["prompt_tokens"] + document["generated_tokens"], 65)
        self.assertEqual(self.json(qllm(*arguments, "--kv-memory", "1MB"))["finish_reason"], "length")
        self.fails(qllm(*arguments, "--kv-memory", "100"), 1, "kv_memory_bytes", "16384")
        self.fails(qllm(*arguments, "--kv-memory", "-1"), 2)
        self.fails(qllm(*arguments, "--kv-format", "fp8"), 2)

    def test_prompts_that_do_not_work(self):
        self.fails(qllm("run", TINY, "-p", ""), 1, "prompt", "empty")
        self.fails(qllm("run", TINY, stdin=b""), 1, "prompt", "empty")
        self.fails(qllm("run", TINY, "-p", "x" * 5000), 1, "context", "256")
        self.fails(qllm("run", TINY, "-p", "x", "-c", 257), 1, "context", "257", "256")
        self.fails(qllm("run", TINY, "-f", path("absent.txt")), 1, "absent.txt")
        self.fails(qllm("run", TINY, "-f", WORK), 1, WORK, "directory")

    def test_invalid_utf8_is_a_text_like_any_other(self):
        result = qllm("run", TINY, "-", "-n", 4, "--json", stdin=b"\xff\xfe\x80abc\xc3")
        self.assertGreater(self.json(result)["prompt_tokens"], 0)

    def test_a_prompt_may_begin_with_a_dash(self):
        self.works(qllm("run", TINY, "-p", "-5 degrees", "-n", 2))

    def test_models_that_do_not_work(self):
        self.fails(qllm("run", path("absent.gguf"), "-p", "x"), 1, "absent.gguf")
        self.fails(qllm("run", WORK, "-p", "x"), 1, WORK, "directory")
        self.fails(qllm("run", path("empty.gguf", b""), "-p", "x"), 1, "empty.gguf")
        with open(TINY, "rb") as file:
            whole = file.read()
        for size in (3, 100, 4000, len(whole) // 2, len(whole) - 1):
            with self.subTest(size=size):
                self.fails(qllm("run", path("cut.gguf", whole[:size]), "-p", "x"), 1, "cut.gguf")
        self.fails(qllm("run", path("text.gguf", b"This is no model. " * 100), "-p", "x"), 1, "text.gguf")

    def test_what_this_build_does_not_do(self):
        self.fails(qllm("run", TINY, "-p", "x", "--device", "cuda"), 1, "cuda")
        self.fails(qllm("run", TINY, "-p", "x", "--device", "cpu", "--scheme", "fp32"), 1, "fp32")
        self.fails(qllm("run", TINY, "-p", "x", "--isa", "abacus"), 1, "abacus")
        self.fails(qllm("run", TINY, "-p", "x", "--cpus", "99999"), 1, "99999")

    def test_layers_on_two_devices(self):
        arguments = ["run", TINY, "-p", "Hello world", "-n", 12, "--greedy", "--ignore-eos", "--quiet", "--no-cache", "--device"]
        alone = self.works(qllm(*arguments, "cpu"))
        for layers in (0, 1, 2, 99):
            self.assertEqual(self.works(qllm(*arguments, "cpu+cpu", "--gpu-layers", layers)), alone)
        self.assertEqual(self.works(qllm(*arguments, "cpu", "--gpu-layers", 0)), alone)
        self.assertEqual(self.works(qllm(*arguments, "cpu", "--gpu-layers", "auto")), alone)
        self.fails(qllm(*arguments, "cpu", "--gpu-layers", 1), 1, "1 layers asked for a GPU: device cpu has none")
        self.fails(qllm(*arguments, "cpu+cpu"), 1, "--gpu-layers")

    def test_devices_and_threads(self):
        for more in (["--device", "reference"], ["--device", "reference", "--scheme", "int8"],
                     ["--isa", "scalar"], ["--threads", 1], ["--cpus", "0"], ["--no-cache"],
                     ["--scheme", "int4-g32"], ["--scheme", "keep"]):  # fmt: skip
            with self.subTest(more=more):
                self.works(qllm("run", TINY, "-p", "Hello", "-n", 3, *more))


class Streams(Case):
    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            result = qllm("run", TINY, "-p", "x", "-n", 4)
            self.works(result)
            for arguments in (["run", TINY, "-p", "x", "-n", 4], ["tokenize", TINY, "-p", "x"], ["info"], ["--help"]):
                with self.subTest(arguments=arguments):
                    process = start(*arguments, stdout=full)
                    _, errors = process.communicate(timeout=TIMEOUT_S)
                    self.assertEqual(process.returncode, 1)
                    self.assertIn(b"qllm: error: standard output: ", errors)

    def test_closed_pipe_ends_quietly(self):
        process = long_run("--quiet")
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read()
        self.assertEqual(process.wait(TIMEOUT_S), 0)
        self.assertEqual(errors, b"")
        process.stdin.close()
        process.stderr.close()

    def test_closed_stdout_is_an_error(self):
        result = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', QLLM, "tokenize", TINY, "-p", "x"], capture_output=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"standard output", result.stderr)


class Interrupt(Case):
    def test_run_stops_with_130(self):
        process = long_run()
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130)

    def test_json_of_an_interrupted_run(self):
        # Text comes only at the end, so that nothing tells when the model is loaded: a wait that was
        # too short on a busy machine ends with 130 and no document, and a longer one follows.
        for wait_s in (2, 6, 20, 60):
            process = long_run("--json")
            time.sleep(wait_s)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=TIMEOUT_S)
            self.assertEqual(process.returncode, 130)
            if out:
                break
        self.assertEqual(json.loads(out)["finish_reason"], "cancelled")

    def test_waiting_for_input(self):
        process = start("run", TINY, "-")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT_S), 130)
        process.communicate()

    def test_long_commands(self):
        text = path("long.txt", b"the world is in the world and on the world. " * 40000)
        for arguments in (["perplexity", TINY, "-f", text, "-c", 64], ["bench", TINY, "--prompt", 8, "--gen", 4, "--repeat", 100000]):
            with self.subTest(arguments=arguments):
                process = start(*arguments)
                time.sleep(1.5)
                process.send_signal(signal.SIGINT)
                out, _ = process.communicate(timeout=TIMEOUT_S)
                self.assertEqual(process.returncode, 130)
                self.assertEqual(out, b"")

    def test_chat_first_stops_the_answer_then_leaves(self):
        process = start("chat", LONG, "-n", -1, "-c", LONG_CONTEXT, "--ignore-eos")
        process.stdin.write(b"Hello\n")
        process.stdin.flush()
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        self.assertIn(b"stopped", process.stderr.readline())
        self.assertIsNone(process.poll())
        # The next answer is not touched by that.
        process.stdin.write(b"/reset\nHello\n")
        process.stdin.flush()
        while select.select([process.stdout], [], [], 1)[0]:
            if len(os.read(process.stdout.fileno(), 65536)) == 0 or self.new_answer(process):
                break
        process.send_signal(signal.SIGINT)
        self.assertIn(b"stopped", process.stderr.readline())
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130)

    def new_answer(self, process):
        """Whether text still comes although what was there has been read."""
        time.sleep(0.3)
        return bool(select.select([process.stdout], [], [], 0)[0])


class Traces(Case):
    OPS = {"token_embd", "select_rows", "output_norm", "lm_head"}
    for op in ("attn_norm", "attn_qkv", "rope_kv_write", "attention", "attn_output", "ffn_norm", "ffn_gate_up", "swiglu", "ffn_down"):
        OPS |= {"blk.0." + op, "blk.1." + op}

    def load(self, name):
        with open(name) as file:
            return json.load(file)

    def spans(self, document, process):
        """Complete events of a process, by thread, in order of time."""
        names = {e["args"]["name"]: e["pid"] for e in document["traceEvents"] if e["name"] == "process_name"}
        threads = {}
        for event in document["traceEvents"]:
            if event["ph"] == "X" and event["pid"] == names[process]:
                threads.setdefault(event["tid"], []).append(event)
        return [sorted(events, key=lambda e: e["ts"]) for events in threads.values()]

    def ops(self, events):
        """The ops of the graph that events name: those that run as one are joined."""
        found = set()
        for event in events:
            first, *others = event["name"].split("+")
            layer = first[: first.rfind(".") + 1]
            found |= {first} | {layer + other for other in others}
        return found & self.OPS

    def steps_of(self, document):
        """Args of the steps."""
        return [e["args"] for thread in self.spans(document, "engine") for e in thread if e["cat"] == "step"]

    def test_every_op_of_every_step(self):
        for device, n_workers in (("cpu", 2), ("reference", 1)):
            with self.subTest(device=device):
                name = path(f"trace-{device}.json")
                arguments = ["run", TINY, "-p", "Hello world", "-n", 5, "--greedy", "--ignore-eos", "--threads", 2, "--device", device]
                traced = self.works(qllm(*arguments, "--trace", name))
                self.assertEqual(traced, self.works(qllm(*arguments)))
                document = self.load(name)
                steps = self.steps_of(document)
                self.assertEqual([s["tokens"] for s in steps[1:]], [1] * 4)
                self.assertGreater(steps[0]["tokens"], 1)
                self.assertEqual([s["outputs"] for s in steps], [1] * 5)
                tracks = self.spans(document, "cpu")
                hosts = [t for t in tracks if any(e["name"] == "prepare" for e in t)]
                workers = [t for t in tracks if t not in hosts]
                self.assertEqual(len(workers), n_workers)
                for step in range(len(steps)):
                    for worker in workers:
                        events = [e for t in [worker, *hosts] for e in t if e["args"]["step"] == step]
                        self.assertEqual(self.ops(events), self.OPS)
                for track in tracks + self.spans(document, "engine"):
                    end = 0
                    for event in track:
                        self.assertGreaterEqual(event["dur"], 0)
                        self.assertGreaterEqual(event["ts"] + 1e-9, end)
                        end = event["ts"] + event["dur"] - 1e-6  # they are decimals here, and end to end
                linears = [e for t in workers for e in t if e["cat"].startswith("linear")]
                self.assertEqual(device == "cpu", any("bytes" in e["args"] for e in linears))
                self.assertEqual(document["otherData"]["dropped_spans"], 0)

    def test_what_cannot_be_written_is_known_before_the_work(self):
        name = os.path.join(WORK, "no", "such", "folder.json")
        self.fails(qllm("run", path("absent.gguf"), "-p", "x", "--trace", name), 1, name, "No such file")
        result = qllm("run", TINY, "-p", "x", "-n", 2, "--trace", "/dev/full")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"/dev/full", result.stderr)
        self.fails(qllm("run", TINY, "-p", "x", "--trace-memory", 1 << 20), 2, "--trace")

    def test_an_interrupted_run_leaves_a_whole_file(self):
        name = path("interrupted.json")
        process = long_run("--trace", name)
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130)
        self.assertGreater(len(self.steps_of(self.load(name))), 0)

    def test_chat_writes_it_when_it_is_left(self):
        name = path("chat.json")
        process = start("chat", TINY, "-n", 3, "--ignore-eos", "--trace", name)
        process.stdin.write(b"Hello\n")
        process.stdin.flush()
        self.assertIn(b"cut off", process.stderr.readline())
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(len(self.steps_of(self.load(name))), 3)

    def test_what_found_no_room_is_told(self):
        name = path("dropped.json")
        result = qllm("run", TINY, "-p", "Hello", "-n", 100, "--ignore-eos", "--trace", name, "--trace-memory", 1 << 16)
        self.works(result)
        document = self.load(name)
        dropped = document["otherData"]["dropped_steps"]
        self.assertEqual(dropped + len(self.steps_of(document)), 100)
        self.assertIn(f"{dropped} of 100 steps".encode(), result.stderr)

    def test_bench(self):
        name = path("bench.json")
        arguments = ["bench", TINY, "--prompt", 8, "--gen", 3, "--batch", 2, "--repeat", 1, "--trace", name]
        self.works(qllm(*arguments))
        document = self.load(name)
        self.assertEqual({s["tokens"] for s in self.steps_of(document)}, {8, 2})
        self.assertEqual(len(self.spans(document, "engine")), 3)  # the steps, and two sessions
        self.fails(qllm(*arguments, "--threads", "1,2"), 2, "--trace")


class Chat(Case):
    def test_from_a_pipe(self):
        result = qllm("chat", TINY, "-n", 8, "--greedy", "--system", "Be brief.", stdin=b"Hello\n\n/reset\nHello\n/exit\nno\n")
        out = self.works(result)
        self.assertNotIn(b"> ", result.stderr)
        half = len(out) // 2
        self.assertEqual(out[:half], out[half:])  # after /reset the same answer

    def test_turns_build_on_each_other(self):
        out = self.works(qllm("chat", TINY, "-n", 8, "--greedy", "--ignore-eos", stdin=b"Hello\nHello\n"))
        half = len(out) // 2
        self.assertNotEqual(out[:half], out[half:])

    def test_end_of_input(self):
        self.assertEqual(self.works(qllm("chat", TINY, stdin=b"")), b"")

    def test_context_full(self):
        line = b"the world " * 10 + b"\n"
        result = qllm("chat", TINY, "-c", 96, "-n", 8, "--ignore-eos", stdin=line * 20)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"/reset", result.stderr)
        self.assertIn(b"96", result.stderr)

    def test_on_a_terminal(self):
        for no_color in (False, True):
            with self.subTest(no_color=no_color):
                screen, status = self.at_terminal(no_color)
                self.assertEqual(status, 130)
                self.assertIn(b"> ", screen)
                self.assertNotIn(b"\x1b", screen)

    def at_terminal(self, no_color):
        """Asks one question, waits for the next prompt, types Ctrl-C there."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            if no_color:
                os.environ["NO_COLOR"] = "1"
            os.execv(QLLM, [QLLM, "chat", TINY, "-n", "8"])
        screen = b""
        typed = False
        while True:
            try:
                block = os.read(terminal, 4096)
            except OSError:
                break
            if not block:
                break
            screen += block
            if not typed and screen.endswith(b"> "):
                os.write(terminal, b"Hello\n")
                typed = True
                prompts = screen.count(b"\n> ")
            elif typed and screen.endswith(b"> ") and screen.count(b"\n> ") > prompts:
                os.write(terminal, b"\x03")
        os.close(terminal)
        return screen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Tokens(Case):
    TEXTS = ["Hello world", "the  world\n\tand — “quotes”, 東京, 🙂", "<|im_start|>", " ", "a" * 10000]

    def test_round_trip(self):
        for text in self.TEXTS:
            with self.subTest(text=text[:20]):
                ids = self.json(qllm("tokenize", TINY, "-f", path("t.txt", text.encode())))
                out = self.works(qllm("detokenize", TINY, "--ids", ",".join(map(str, ids))))
                self.assertEqual(out.decode(), text)

    def test_bytes_that_are_no_utf8(self):
        data = b"\xff\x00\x80 abc \xc3"
        ids = self.works(qllm("tokenize", TINY, "-", stdin=data))
        self.assertEqual(self.works(qllm("detokenize", TINY, "--ids", "-", stdin=ids)), data)

    def test_huge_text_through_pipes(self):
        data = b"the world is in the world. " * 40000
        ids = self.works(qllm("tokenize", TINY, stdin=data))
        self.assertEqual(self.works(qllm("detokenize", TINY, "--ids", "-", stdin=ids)), data)

    def test_empty_text(self):
        self.assertEqual(self.json(qllm("tokenize", TINY, "-p", "", "--no-special")), [])

    def test_special_tokens(self):
        plain = self.json(qllm("tokenize", TINY, "-p", "<|im_end|>", "--no-special"))
        parsed = self.json(qllm("tokenize", TINY, "-p", "<|im_end|>", "--no-special", "--parse-special"))
        self.assertEqual(parsed, [2])
        self.assertGreater(len(plain), 1)
        self.assertEqual(self.works(qllm("detokenize", TINY, "--ids", "2")), b"")
        self.assertEqual(self.works(qllm("detokenize", TINY, "--ids", "2", "--special")), b"<|im_end|>")

    def test_json(self):
        ids = self.json(qllm("tokenize", TINY, "-p", "Hello", "--json"))["ids"]
        text = self.json(qllm("detokenize", TINY, "--ids", str(ids), "--json"))["text"]
        self.assertEqual(text, "Hello")

    def test_bad_ids(self):
        for ids in ("1,x", "-1", "1.5", "99999999999", "300", "2147483647"):
            with self.subTest(ids=ids):
                self.fails(qllm("detokenize", TINY, "--ids", ids), 1)


class Template(Case):
    def test_renders(self):
        messages = path("m.json", b'[{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]')
        expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        opened = expected + "<|im_start|>assistant\n"
        self.assertEqual(self.works(qllm("template", TINY, "--messages", messages)).decode(), opened)
        self.assertEqual(self.json(qllm("template", TINY, "--messages", messages, "--json")), {"text": opened})
        closed = qllm("template", TINY, "--messages", messages, "--no-generation-prompt")
        self.assertEqual(self.works(closed).decode(), expected)

    def test_bad_messages(self):
        for content in (b"", b"{", b"{}", b"[1]", b'[{"role": "user"}]', b'[{"role": 1, "content": "x"}]'):
            with self.subTest(content=content):
                self.fails(qllm("template", TINY, "--messages", path("bad.json", content)), 1, "bad.json")

    def test_not_yet(self):
        messages = path("m.json", b"[]")
        self.fails(qllm("template", "--template", messages, "--messages", messages), 1, "not supported yet")
        self.fails(qllm("template", TINY, "--tools", messages, "--messages", messages), 1, "not supported yet")


class Logits(Case):
    def test_agrees_with_greedy_text(self):
        ids = self.json(qllm("tokenize", TINY, "-p", "Hello world"))
        out = path("l.npy")
        self.works(qllm("logits", TINY, "--ids", ",".join(map(str, ids)), "-o", out))
        shape, values = read_npy(out)
        self.assertEqual(shape, (len(ids), 300))
        self.assertEqual(len(values), len(ids) * 300)
        last = values[-300:]
        best = max(range(300), key=lambda i: last[i])
        text = self.works(qllm("detokenize", TINY, "--ids", best, "--json"))
        run = qllm("run", TINY, "-p", "Hello world", "-n", 1, "--greedy", "--ignore-eos", "--json")
        self.assertEqual(json.loads(text)["text"], self.json(run)["text"])
        self.assertEqual([name for name in os.listdir(WORK) if ".part-" in name], [])

    def test_more_tokens_than_one_step_hands_out(self):
        out = path("many.npy")
        self.works(qllm("logits", TINY, "--ids", ",".join(["5"] * 200), "-o", out))
        self.assertEqual(read_npy(out)[0], (200, 300))

    def test_what_does_not_work(self):
        out = path("never.npy")
        self.fails(qllm("logits", TINY, "--ids", "300", "-o", out), 1, "300")
        self.fails(qllm("logits", TINY, "--ids", "", "-o", out), 1, "ids")
        self.fails(qllm("logits", TINY, "--ids", "1;2", "-o", out), 1, "1;2")
        self.fails(qllm("logits", TINY, "--ids", ",".join(["5"] * 257), "-o", out), 1, "257")
        self.fails(qllm("logits", TINY, "--ids", "1", "-o", path("no/such/dir.npy")), 1, "dir.npy")
        self.fails(qllm("logits", TINY, "--ids", "1", "-o", "/dev/full"), 1, "/dev/full")
        self.assertFalse(os.path.exists(out))


class Info(Case):
    def test_machine_alone(self):
        machine = self.json(qllm("info", "--json"))["machine"]
        self.assertIn("scalar", machine["isa"])
        self.assertGreaterEqual(machine["numa_nodes"], 1)
        self.assertGreaterEqual(machine["workers"], 1)
        self.assertIn("kernel tiers", self.works(qllm("info", "--kernels")).decode())
        self.assertIn(machine["kernels"][0]["kernel"], self.works(qllm("info", "--kernels")).decode())
        scalar = self.json(qllm("info", "--isa", "scalar", "--json"))["machine"]["kernels"]
        self.assertEqual([k["kernel"] for k in scalar], ["dot_u8s8s32_n64k4_plain_scalar"])
        self.assertEqual(scalar[0]["tokens_from"], 1)

    def test_model(self):
        document = self.json(qllm("info", TINY, "--json"))
        model = document["model"]
        self.assertIn("machine", document)
        self.assertEqual(model["architecture"], "llama")
        self.assertEqual(model["parameters"], sum(math.prod(t["shape"]) for t in model["tensors"]))
        for key in ("weight_bytes", "bytes_per_token", "kv_bytes_per_token"):
            self.assertGreater(model[key], 0)
        self.assertEqual(model["scheme"], "int8")
        text = self.works(qllm("info", TINY, "--tensors")).decode()
        for tensor in model["tensors"]:
            self.assertIn(tensor["name"], text)

    def test_the_scheme_decides_the_size(self):
        sizes = {}
        for scheme in ("fp32", "int8", "keep", "int4-g32", "int4-g64-sym"):
            model = self.json(qllm("info", TINY, "--device", "reference", "--scheme", scheme, "--json"))["model"]
            self.assertEqual(model["scheme"], scheme)
            sizes[scheme] = model["weight_bytes"]
        self.assertGreater(sizes["fp32"], sizes["int8"])
        self.assertGreater(sizes["int8"], sizes["int4-g32"])
        self.assertGreater(sizes["int4-g32"], sizes["int4-g64-sym"])
        self.fails(qllm("info", TINY, "--scheme", "int4"), 2, "int4-g128")

    def test_bad_model(self):
        self.fails(qllm("info", path("absent.gguf")), 1, "absent.gguf")
        self.fails(qllm("info", WORK, "--json"), 1, WORK)


class Bench(Case):
    SHAPE = "d_model=64,d_ff=128,n_layers=1,n_heads=2,n_kv_heads=1,head_dim=32,vocab=300"
    SHORT = ["--prompt", 8, "--gen", 4, "--repeat", 2]

    def test_json(self):
        for what in ([TINY], ["--synthetic", self.SHAPE]):
            with self.subTest(what=what):
                document = self.json(qllm("bench", *what, *self.SHORT, "--depth", 3, "--json"))
                for keys in (("prefill", "tokens_per_s"), ("decode", "tokens_per_s"), ("decode", "gbps"),
                             ("decode", "bytes_per_step"), ("ceiling_gbps",), ("decode", "percent_of_ceiling"),
                             ("prefill", "tops"), ("prefill", "percent_of_peak"), ("peak_tops",), ("load_s",), ("peak_rss_bytes",)):  # fmt: skip
                    place = document
                    for key in keys[:-1]:
                        place = place[key]
                    low, middle, high = (place[keys[-1] + end] for end in ("_min", "", "_max"))
                    self.assertGreater(low, 0, keys)
                    self.assertLessEqual(low, middle)
                    self.assertLessEqual(middle, high)

    def test_parts_of_two_devices(self):
        shape = self.SHAPE.replace("n_layers=1", "n_layers=3")
        bench = ["bench", "--synthetic", shape, *self.SHORT, "--depth", 3]
        whole = self.json(qllm(*bench, "--device", "cpu", "--json"))
        self.assertNotIn("parts", whole)
        both = [*bench, "--device", "cpu+cpu", "--gpu-layers", 1]
        document = self.json(qllm(*both, "--json"))
        first, second = document["parts"]
        self.assertEqual((first["layers"], second["layers"]), (2, 1))
        self.assertEqual(first["device"], "cpu")
        total = first["bytes_per_step"] + second["bytes_per_step"]
        self.assertAlmostEqual(total, document["decode"]["bytes_per_step"], delta=1)
        self.assertEqual(document["decode"]["bytes_per_step"], whole["decode"]["bytes_per_step"])
        for part in (first, second):
            for key in ("gbps", "ceiling_gbps", "percent_of_ceiling"):
                self.assertGreater(part[key + "_min"], 0)
                self.assertLessEqual(part[key + "_min"], part[key])
                self.assertLessEqual(part[key], part[key + "_max"])
        low = min(first["ceiling_gbps_min"], second["ceiling_gbps_min"])
        high = max(first["ceiling_gbps_max"], second["ceiling_gbps_max"])
        self.assertLessEqual(low, document["ceiling_gbps"])
        self.assertLessEqual(document["ceiling_gbps"], high)
        text = self.works(qllm(*both)).decode()
        self.assertRegex(text, r"(?m)^part +layers +MB per step")

    def test_shared_prefix(self):
        arguments = ["bench", TINY, "--shared-prefix", 150, "--gen", 4, "--repeat", 2]
        document = self.json(qllm(*arguments, "--json"))
        self.assertEqual(document["reused_tokens"], 128)  # two blocks of 64
        self.assertTrue(document["output_equal"])
        self.assertGreater(document["first_ttft_ms"], 0)
        self.assertIn("output equal", self.works(qllm(*arguments)).decode())
        self.fails(qllm(*arguments, "--csv"), 2)

    def test_threads_are_rows(self):
        document = self.json(qllm("bench", TINY, *self.SHORT, "--threads", "1,2", "--json"))
        self.assertEqual([run["threads"] for run in document["runs"]], [1, 2])
        rows = self.works(qllm("bench", TINY, *self.SHORT, "--threads", "1,2", "--csv")).decode().splitlines()
        self.assertEqual(len(rows), 3)
        self.assertEqual(len({row.count(",") for row in rows}), 1)
        self.assertIn("ceiling", self.works(qllm("bench", TINY, *self.SHORT)).decode())

    def test_a_batch_decodes_together(self):
        document = self.json(qllm("bench", TINY, *self.SHORT, "--batch", "3", "--json"))
        self.assertEqual(document["decode"]["batch"], 3)
        alone = self.json(qllm("bench", TINY, *self.SHORT, "--json"))["decode"]["bytes_per_step"]
        self.assertGreater(document["decode"]["bytes_per_step"], alone)  # the weights once, three caches
        self.assertLess(document["decode"]["bytes_per_step"], 3 * alone)

    def test_what_does_not_work(self):
        self.fails(qllm("bench", TINY, "--batch", 65), 2, "batch")
        self.fails(qllm("bench", "--synthetic", self.SHAPE + ",n_experts=4"), 1, "n_experts")
        self.fails(qllm("bench", TINY, "--prompt", 300), 1, "context", "300")
        self.fails(qllm("bench", "--synthetic", "d_model=1000000000,n_layers=1000000"), 1)


class Perplexity(Case):
    TEXT = b"Hello world and the world of the old. " * 6

    def test_equals_what_the_logits_say(self):
        text = path("prose.txt", self.TEXT)
        chunk = 32
        document = self.json(qllm("perplexity", TINY, "-f", text, "-c", chunk, "--chunks", 2, "--json"))
        self.assertEqual(document["tokens"], chunk)  # half of each of two chunks
        self.assertIsNone(document["kl_mean"])
        self.assertIsNone(document["top1_agreement"])
        ids = self.json(qllm("tokenize", TINY, "-f", text, "--no-special"))
        loss = 0.0
        for begin in (0, chunk):
            part = ids[begin : begin + chunk]
            self.works(qllm("logits", TINY, "--ids", ",".join(map(str, part)), "-o", path("p.npy")))
            _, values = read_npy(path("p.npy"))
            for i in range(chunk // 2, chunk):
                row = values[(i - 1) * 300 : i * 300]
                top = max(row)
                loss += top + math.log(sum(math.exp(x - top) for x in row)) - row[part[i]]
        self.assertAlmostEqual(document["perplexity"] / math.exp(loss / chunk), 1, places=6)

    def test_against_the_reference(self):
        arguments = ["perplexity", TINY, "-f", path("prose.txt", self.TEXT), "-c", 32, "--against", "reference", "--json"]
        document = self.json(qllm(*arguments))
        self.assertGreater(document["kl_mean"], 0)
        self.assertLess(document["kl_mean"], 0.1)
        self.assertGreater(document["kl_stderr"], 0)
        self.assertLess(document["kl_stderr"], document["kl_mean"])
        self.assertGreater(document["perplexity_stderr"], 0)
        self.assertGreaterEqual(document["top1_stderr"], 0)
        self.assertGreater(document["top1_agreement"], 0.5)
        same = self.json(qllm(*arguments, "--device", "reference"))
        self.assertAlmostEqual(same["kl_mean"], 0, places=12)
        self.assertEqual(same["top1_agreement"], 1)
        self.assertEqual(same["perplexity"], same["reference_perplexity"])
        self.assertEqual(same["perplexity"], document["reference_perplexity"])

    def test_int8_keys_and_values_against_bf16(self):
        arguments = ["perplexity", TINY, "-f", path("prose.txt", self.TEXT), "-c", 32, "--against", "kv-bf16", "--json"]
        same = self.json(qllm(*arguments))
        self.assertAlmostEqual(same["kl_mean"], 0, places=12)
        for device in ("cpu", "reference"):
            with self.subTest(device=device):
                rounded = self.json(qllm(*arguments, "--device", device, "--kv-format", "int8"))
                self.assertGreater(rounded["kl_mean"], 0)
                self.assertLess(rounded["kl_mean"], 0.01)

    def test_what_does_not_work(self):
        self.fails(qllm("perplexity", TINY, "-f", path("short.txt", b"Hello")), 1, "512")
        self.fails(qllm("perplexity", TINY, "-f", path("absent.txt")), 1, "absent.txt")
        self.fails(qllm("perplexity", TINY, "-f", path("prose.txt", self.TEXT), "-c", 300), 1, "300")


class Roofline(Case):
    CASE = ["--preset", "llama-32b", "--quiet", "--device"]

    def test_json_adds_up(self):
        document = self.json(qllm("roofline", "--preset", "llama-8b", "--device", "h100-sxm,l4,epyc-9654", "--batch", "1,16",
                                  "--context", "1024,4096", "--scheme", "int8,int4-g64", "--quiet", "--json"))  # fmt: skip
        self.assertEqual([d["id"] for d in document["devices"]], ["h100-sxm", "l4", "epyc-9654"])
        for device in document["devices"]:
            self.assertEqual(device["figures"], "data sheet")
            self.assertRegex(device["source"], r"20\d\d")
        self.assertEqual(len(document["phases"]), 3 * 2 * 2 * 2 * 2)
        for phase in document["phases"]:
            which = ("phase", "device", "batch", "context", "scheme")
            ops = [op for op in document["ops"] if all(op[key] == phase[key] for key in which)]
            for op in ops:
                self.assertEqual(op["bytes"], op["weight_bytes"] + op["kv_bytes"] + op["activation_bytes"])
                self.assertIn(op["bound"], ("memory", "compute"))
                self.assertIsNone(op["measured_ns"])
                if op["bytes"] > 0:
                    self.assertAlmostEqual(op["intensity"], op["operations"] / op["bytes"], places=9)
            self.assertEqual(phase["bytes"], sum(op["bytes"] for op in ops))
            step_ms = phase["tpot_ms" if phase["phase"] == "decode" else "ttft_ms"]
            self.assertAlmostEqual(sum(op["min_time_ns"] for op in ops) / 1e6 / step_ms, 1, places=9)
            tokens = phase["batch"] * (1 if phase["phase"] == "decode" else phase["context"])
            self.assertAlmostEqual(phase["tokens_per_s_ceiling"] * step_ms / 1e3 / tokens, 1, places=9)

    def test_the_page_of_formulas_says_what_the_tool_says(self):
        """docs/roofline.md works one layer by hand: 42 of them and what comes once are a step."""
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/roofline.md"), encoding="utf-8") as file:
            lines = file.read().splitlines()
        worked = {}
        factor = 0
        for line in lines:
            if line.startswith("| one layer |"):
                factor = 42
            elif line.startswith("| once a step |"):
                factor = 1
            match = re.match(r"\| `(\w+)` \|(.*)\|(.*)\|$", line)
            if not match or factor == 0:
                continue
            sums = worked.setdefault(match[1], [0, 0])
            for i, cell in enumerate((match[2], match[3])):
                formula, _, value = cell.replace(",", "").rpartition("=")
                value = int(value)
                if formula:
                    self.assertEqual(eval(formula.replace("x", "*"), {"__builtins__": {}}), value, line)
                sums[i] += factor * value
        document = self.json(qllm("roofline", *self.CASE, "h100-sxm", "--batch", 4, "--context", 2048, "--json"))
        ops = {op["name"]: [op["bytes"], op["operations"]] for op in document["ops"] if op["phase"] == "decode"}
        self.assertEqual(len(ops), 17)
        self.assertEqual(worked, ops)

    TINY_SHAPE = {"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 192,
                  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip

    def test_a_model_file_and_this_cpu(self):
        document = self.json(qllm("roofline", TINY, "--device", "cpu", "--batch", 1, "--context", 64, "--json"))
        cpu = document["devices"][0]
        self.assertEqual(cpu["figures"], "measured")
        for key in ("read_gbps", "int8_tops", "fp32_tflops"):
            self.assertGreater(cpu[key], 0)
        model = self.json(qllm("info", TINY, "--json"))["model"]
        decode = [op for op in document["ops"] if op["phase"] == "decode"]
        # A file's model may be rotated when it is loaded: its norms then have no gains to read.
        read = {op["name"]: op["weight_bytes"] for op in decode}
        self.assertIn(sum(read.values()) - model["bytes_per_token"], (0, read["norm"]))
        kept = self.works(qllm("roofline", TINY, "--device", "l4", "--scheme", "keep", "--csv")).decode().splitlines()
        self.assertTrue(kept[0].startswith("phase,device,batch,context,scheme,kv,name,"))
        self.assertEqual({line.count(",") for line in kept}, {13})

    def test_measured_beside_predicted(self):
        arguments = ["--device", "cpu", "--batch", "1,2", "--context", 20, "--measure", "--repeat", 2]
        document = self.json(qllm("roofline", TINY, *arguments, "--json"))
        for phase in document["phases"]:
            self.assertLessEqual(phase["measured_over_bound_min"], phase["measured_over_bound"])
            self.assertGreater(phase["measured_over_bound_min"], 0)

            def alike(row, phase=phase):
                return all(row[key] == phase[key] for key in ("phase", "device", "batch"))

            stages = [stage for stage in document["stages"] if alike(stage)]
            self.assertGreater(sum(stage["measured_ns"] for stage in stages), 0.5e6 * phase["measured_ms"])
            measured = {op["name"]: op["measured_ns"] for op in document["ops"] if alike(op)}
            for stage in stages:
                if stage["min_time_ns"] > 0:  # ops that run as one share its time
                    self.assertTrue(all(measured[op] is not None for op in stage["ops"] if op in measured))
            wanted = {"embedding", "norm", "qkv", "rope", "attention", "o", "ffn_in", "ffn_out", "rest"}
            wanted |= {"lm_head"} if phase["phase"] == "decode" else set()
            self.assertGreaterEqual({stage["name"] for stage in stages}, wanted)
        shape = path("tiny.json", json.dumps(self.TINY_SHAPE).encode())
        text = self.works(qllm("roofline", "--config", shape, *arguments)).decode()
        self.assertLessEqual(max(map(len, text.splitlines())), 80, text)
        for word in ("decode measured on cpu: batch 2", "gate, up, SwiGLU", "round by round"):
            self.assertIn(word, text)
        self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "l4", "--measure"), 2, "--measure")
        self.fails(qllm("roofline", "--preset", "mixtral-8x7b", "--device", "cpu", "--measure"), 1, "experts")
        self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "cpu", "--measure", "--batch", 65), 2, "--batch")

    def test_a_cuda_device_where_there_is_none(self):
        result = qllm("roofline", "--preset", "llama-8b", "--device", "cuda")
        if result.returncode != 0:
            self.fails(result, 1, "cuda")

    def test_config(self):
        config = {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
                  "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                  "num_local_experts": 8, "num_experts_per_tok": 2}  # fmt: skip
        name = path("config.json", json.dumps(config).encode())
        tail = ["--device", "h200", "--json"]
        one = self.json(qllm("roofline", "--config", name, *tail))
        self.assertEqual(one["ops"], self.json(qllm("roofline", "--preset", "mixtral-8x7b", *tail))["ops"])
        self.assertEqual(one["ops"], self.json(qllm("roofline", "--config", WORK, *tail))["ops"])
        del config["hidden_size"]
        self.fails(qllm("roofline", "--config", path("c.json", json.dumps(config).encode()), *tail), 1, "c.json", "hidden_size")
        self.fails(qllm("roofline", "--config", path("c.json", b"[" * 100000), *tail), 1, "c.json")
        self.fails(qllm("roofline", "--config", path("absent.json"), *tail), 1, "absent.json")

    def test_energy_and_price(self):
        document = self.json(qllm("roofline", "--preset", "llama-8b", "--device", "h100-sxm,l4", "--batch", 1, "--power", "700,72",
                                  "--price", 0.3, "--hourly", 2, "--json"))  # fmt: skip
        for phase in document["phases"]:
            watts = 700 if phase["device"] == "h100-sxm" else 72
            hours = 1e6 / phase["tokens_per_s_ceiling"] / 3600
            self.assertAlmostEqual(phase["kwh_per_million_tokens"] / (hours * watts / 1000), 1, places=9)
            self.assertAlmostEqual(phase["price_per_million_tokens"] / (hours * watts / 1000 * 0.3 + hours * 2), 1, places=9)

    def test_the_table_fits_a_terminal(self):
        for more in ([], ["--ops"], ["--power", 700, "--price", 0.3]):
            result = qllm("roofline", *self.CASE, "xeon-8480+,h100-sxm", *more)
            text = self.works(result).decode()
            self.assertEqual(result.stderr, b"")
            self.assertLessEqual(max(map(len, text.splitlines())), 80, text)
            for word in ("DECODE", "PREFILL", "memory", "compute", "TTFT", "TPOT", "data sheet", "would help", "4-bit"):
                self.assertIn(word, text)
        devices = self.works(qllm("roofline", "--list-devices")).decode()
        for name in ("b200", "rtx-4090", "mi300x", "xeon-6980p", "epyc-9755", "ryzen-9950x", "i9-14900k"):
            self.assertIn(name, devices)

    def test_html(self):
        page = path("report.html")
        if shutil.which("gnuplot") is None:
            print("[skipped] roofline page: no gnuplot")
            return
        self.works(qllm("roofline", *self.CASE, "h100-sxm,epyc-9654", "--power", 500, "--html", page))
        with open(page, encoding="utf-8") as file:
            text = file.read()
        root = xml.etree.ElementTree.fromstring(text)  # well-formed
        self.assertEqual(re.findall(r"(?:src|href)=['\"](?!#)[^'\"]*", text), [])  # nothing from elsewhere
        self.assertNotIn("<script", text)
        plots = [e for e in root.iter() if e.tag.endswith("}svg")]
        self.assertEqual(len(plots), 2 * (1 + 2 + 1))  # for a desk and for a phone
        labels = {1: ("intensity (operations per byte)", "operations per second"), 2: ("time of one decode step (ms)",),
                  4: ("batch (sequences that decode together)", "tokens per second")}  # fmt: skip
        for plot, wanted in labels.items():
            for svg in plots[2 * plot - 2 : 2 * plot]:
                shown = re.sub(r"\s+", " ", "".join(svg.itertext()))
                for label in wanted:
                    self.assertIn(label, shown)
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        self.assertEqual(len(ids), len(set(ids)))

    def test_html_in_a_browser(self):
        """What a browser makes of the page: every plot in sight, its letters large enough, nothing wider than the window."""
        browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if browser is None or shutil.which("gnuplot") is None:
            print("[skipped] roofline page in a browser: no Chromium or no gnuplot")
            return
        page = path("browsed.html")
        self.works(qllm("roofline", *self.CASE, "h100-sxm,epyc-9654", "--html", page))
        with open(page, encoding="utf-8") as file:
            text = file.read()
        script = """<script>window.onload = () => {
          const plots = [...document.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().width > 0);
          document.title = "SEEN" + JSON.stringify({width: window.innerWidth, needed: document.documentElement.scrollWidth,
            plots: plots.map(svg => ({box: svg.getBoundingClientRect().toJSON(), text: svg.textContent,
              letters: Math.min(...[...svg.querySelectorAll("text")].map(t => t.getBoundingClientRect().height))}))})};
          </script>"""
        with open(page, "w", encoding="utf-8") as file:
            file.write(text.replace("</body>", script + "</body>"))
        for width in (1200, 400):
            result = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path('profile')}",
                                     f"--window-size={width},2000", "--dump-dom", "file://" + page],
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, timeout=120)  # fmt: skip
            seen = re.search(r"<title>SEEN(.*?)</title>", result.stdout.decode("utf-8", "replace"), re.S)
            self.assertIsNotNone(seen, f"{browser} ran no script")
            seen = json.loads(html.unescape(seen[1]))
            self.assertLessEqual(seen["needed"], seen["width"])
            self.assertEqual(len(seen["plots"]), 4)
            for plot, axes in zip(seen["plots"], (("per byte)", "per second)"), ("(ms)",), ("(ms)",), ("sequences", "tokens per second"))):
                self.assertGreater(plot["box"]["width"], 0.85 * min(seen["width"], 1000))
                self.assertGreaterEqual(plot["letters"], 8)
                for axis in axes:
                    self.assertIn(axis, re.sub(r"\s+", " ", plot["text"]))

    def test_hostile_names_stay_text(self):
        name = path("<b>`touch pwned`$(x)&.json", b'{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}')  # fmt: skip
        page = path("hostile.html")
        arguments = ["roofline", "--config", name, "--device", "l4"]
        self.works(qllm(*arguments, cwd=WORK))
        if shutil.which("gnuplot") is not None:
            self.works(qllm(*arguments, "--html", page, cwd=WORK))
            xml.etree.ElementTree.parse(page)
        self.assertFalse(os.path.exists(path("pwned")))

    def test_without_gnuplot(self):
        self.fails(qllm("roofline", *self.CASE, "l4", "--html", path("no.html"), env={"PATH": WORK}), 1, "gnuplot")
        self.assertFalse(os.path.exists(path("no.html")))

    def test_wrong_usage(self):
        for more in (["--batch", "0"], ["--batch", "1,"], ["--batch", "x"], ["--context", "-5"], ["--device", "l4,,l4"],
                     ["--power", "1,2"], ["--power", "-1"], ["--power", "nan"], ["--kv", "int4"], ["--json", "--csv"],
                     ["--config", "x.json"], ["--batch", ",".join(["1"] * 1001)]):  # fmt: skip
            with self.subTest(more=more):
                self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "l4", *more), 2)
        self.fails(qllm("roofline"), 2, "MODEL")
        self.fails(qllm("roofline", "--preset", "llama-9b"), 1, "llama-9b", "llama-8b")
        self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "h100"), 1, "h100-sxm")
        self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "l4", "--scheme", "int3"), 1, "int3")
        self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "l4", "--scheme", "keep"), 1, "keep")
        self.fails(qllm("roofline", "--preset", "llama-70b", "--device", "l4", "--context", 10**9, "--batch", 10**6), 1, "counted")
        self.fails(qllm("roofline", path("absent.gguf"), "--device", "l4"), 1, "absent.gguf")
        self.fails(qllm("roofline", "--preset", "llama-8b", "--device", "l4", "--html", path("no/such/dir.html")), 1)


def main():
    global QLLM, TINY, LONG, WORK
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    QLLM, TINY = (os.path.abspath(name) for name in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="qllm-cli-") as work:
        WORK = work
        os.environ["XDG_CACHE_HOME"] = os.path.join(work, "cache")  # not the user's
        with open(TINY, "rb") as file:
            LONG = path("long.gguf", with_long_context(file.read()))
        unittest.main(argv=[sys.argv[0], *sys.argv[3:]])


if __name__ == "__main__":
    main()
