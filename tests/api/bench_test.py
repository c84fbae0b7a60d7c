#!/usr/bin/env python3
"""The programs of bench/ on tiny sizes: bench_test.py FOLDER. Their JSON is what it says, whatever the figures."""
import json
import subprocess
import sys
import unittest
from pathlib import Path

FOLDER = Path(sys.argv.pop(1))


def run(name, *arguments):
    return subprocess.run([str(FOLDER / name), *map(str, arguments)], capture_output=True, text=True, timeout=300)


class Case(unittest.TestCase):
    def document(self, name, *arguments):
        done = run(name, *arguments, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def summary(self, s):
        self.assertGreater(s["min"], 0)
        self.assertLessEqual(s["min"], s["median"])
        self.assertLessEqual(s["median"], s["max"])


class Stream(Case):
    TINY = ["--bytes", "1MiB", "--repeat", 1, "--quick"]

    def test_the_best_is_the_best(self):
        d = self.document("stream", *self.TINY)
        self.assertEqual(len(d["reads"]), 4)
        medians = [r["gbps"]["median"] for r in d["finals"]]
        self.assertEqual(d["best"]["gbps"]["median"], max(medians))
        for r in d["reads"] + d["finals"] + d["results"] + d["nodes"]:
            self.summary(r["gbps"])

    def test_every_operation_on_every_page_by_worker_count(self):
        d = self.document("stream", *self.TINY)
        kinds = {(r["workers"], r["pages"], r["op"]) for r in d["results"]}
        self.assertEqual(len(kinds), len(d["results"]))
        transfers = {r["op"]: r["transfers"] for r in d["results"]}
        self.assertEqual(transfers, {"read": 1, "copy": 3, "copy nt": 2, "triad": 4, "triad nt": 3})
        counts = {r["workers"] for r in d["results"]}
        for workers in counts:
            for pages in ("4 KiB", "transparent", "hugetlb"):
                there = sum(k[:2] == (workers, pages) for k in kinds)
                self.assertIn(there, (0, 5))
                self.assertEqual(there == 0, any(s.startswith(f"{workers} worker(s), {pages}") for s in d["skipped"]))

    def test_every_node_reads_every_node(self):
        d = self.document("stream", *self.TINY)
        nodes = {n["worker_node"] for n in d["nodes"]}
        self.assertEqual({(n["worker_node"], n["memory_node"]) for n in d["nodes"]},
                         {(a, b) for a in nodes for b in nodes})

    def test_a_table(self):
        done = run("stream", *self.TINY, "--threads", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Best: loads of", done.stdout)

    def test_bad_flags(self):
        for flags in (["--bytes", 1], ["--bytes", "x"], ["--repeat", 0], ["--threads", -1]):
            self.assertNotEqual(run("stream", *flags).returncode, 0)


class Peak(Case):
    def test_json(self):
        d = self.document("peak", "--threads", 1, "--repeat", 1)
        loops = [r["loop"] for r in d["results"]]
        self.assertEqual(len(set(loops)), len(loops))
        self.assertFalse(set(loops) & set(d["skipped"]))
        self.assertIn(("scalar", "int8"), {(r["isa"], r["type"]) for r in d["results"]})
        for r in d["results"]:
            self.assertEqual(r["workers"], 1)
            self.summary(r["tops"])

    def test_a_table(self):
        self.assertIn("TOPS", run("peak", "--threads", 1, "--repeat", 1).stdout)


class Attention(Case):
    TINY = ["--heads", 6, "--kv-heads", 3, "--head-dim", 32, "--context", 300, "--repeat", 1, "--threads", 1,
            "--megabytes", 64]  # fmt: skip

    def test_json(self):
        for tokens in (1, 20):
            d = self.document("attention", *self.TINY, "--prefill", tokens)
            self.assertEqual([r["format"] for r in d["results"]], ["bf16", "int8"])
            self.assertEqual(d["tokens"], tokens)
            for r in d["results"]:
                for key in ("ms_per_layer", "gbps", "read_gbps", "percent_of_read", "tops"):
                    self.summary(r[key])
                self.assertLessEqual(r["large_page_bytes"], r["cache_bytes"])
                self.assertLessEqual(r["cache_bytes"], 64 << 20)

    def test_a_table(self):
        self.assertIn("ms/layer", run("attention", *self.TINY).stdout)

    def test_bad_flags(self):
        for flags in (["--heads", 5], ["--head-dim", 0], ["--format", "f16"], ["--context", 1, "--prefill", 2]):
            self.assertNotEqual(run("attention", *flags).returncode, 0, flags)


class Barrier(Case):
    STEP = "d_model=128,d_ff=192,n_layers=2,n_heads=2,n_kv_heads=1,head_dim=64,vocab=256"

    def test_by_worker_count(self):
        d = self.document("barrier", "--threads", 2, "--rounds", 100, "--repeat", 2)
        self.assertEqual([r["workers"] for r in d["results"]], [2])
        self.summary(d["results"][0]["barrier_ns"])

    def test_share_of_a_step(self):
        d = self.document("barrier", "--step", self.STEP, "--threads", 2, "--repeat", 2)
        # Five barriers a layer and a few around; one more a layer from the depth on where attention is cut.
        self.assertGreaterEqual(d["barriers_per_step"], 2 * 5)
        self.assertLessEqual(d["barriers_per_step"], 2 * 6 + 5)
        for key in ("step_ns", "barrier_ns", "dispatch_ns", "waiting_ns"):
            self.summary(d[key])
        # Nine ops a layer, of which two are fused, and what is quantized by itself.
        self.assertGreaterEqual(d["spans_per_step"], 2 * 8)
        self.assertLessEqual(d["timers_percent"]["min"], d["timers_percent"]["max"])
        spent = d["barriers_per_step"] * d["barrier_ns"]["median"] + d["dispatch_ns"]["median"]
        self.assertAlmostEqual(d["percent"], 100 * spent / d["step_ns"]["median"])

    def test_bad_flags(self):
        for flags in (["--step", "d_model"], ["--step", "x=1"], ["--scheme", "int3", "--step", self.STEP]):
            self.assertNotEqual(run("barrier", *flags).returncode, 0, flags)


class Placement(Case):
    SHAPE = Barrier.STEP
    TWO = ["--topology", "package:2 [numa(memory=1GiB)] core:4 pu:1", "--node-gbps", 100, "--link-gbps", 20]

    def test_predicts_every_policy(self):
        d = self.document("placement", *self.TWO, "--synthetic", self.SHAPE)
        p = {row["policy"]: row for row in d["predictions"]}
        self.assertEqual(set(p), {"split", "interleave", "local", "replicate"})
        self.assertEqual((d["nodes"], d["packages"]), (2, 2))
        self.assertAlmostEqual(p["split"]["ms"] * 1e-3, d["bytes_per_step"] / 200e9)
        self.assertAlmostEqual(p["local"]["ms"] * 1e-3, d["bytes_per_step"] / 100e9)
        self.assertAlmostEqual(p["replicate"]["tokens_per_s_of_all_teams"], 2 * p["local"]["tokens_per_s"])
        self.assertIn("link", p["interleave"]["bound"])

    def test_known_machines(self):
        for name in ("xeon-6980p-2s", "xeon-6980p-2s-snc3", "epyc-9654-2s-nps1", "epyc-9654-2s-nps4"):
            p = self.document("placement", "--machine", name)["predictions"]
            self.assertGreater(p[0]["tokens_per_s"], p[2]["tokens_per_s"])

    def test_checks_itself_here(self):
        d = self.document("placement", "--check", "--synthetic", self.SHAPE, "--repeat", 1, "--threads", 1,
                          "--check-bytes", "64MiB")  # fmt: skip
        for key in ("read_gbps", "predicted_tokens_per_s", "measured_tokens_per_s", "measured_over_predicted"):
            self.summary(d[key])
        ratio = d["measured_tokens_per_s"]["median"] / d["predicted_tokens_per_s"]["median"]
        self.assertAlmostEqual(d["measured_over_predicted"]["median"], ratio)

    def test_bad_flags(self):
        for flags in ([], ["--machine", "abacus"], ["--topology", "no such", "--node-gbps", 1], ["--node-gbps", -1]):
            self.assertNotEqual(run("placement", *flags).returncode, 0, flags)


class Ffn(Case):
    TINY = ["--d-model", 128, "--d-ff", 192, "--m", "1,3,64", "--repeat", 2, "--threads", 1, "--ceiling-bytes", "64MiB",
            "--ms", 1]  # fmt: skip

    def test_json(self):
        d = self.document("ffn", *self.TINY, "--weights", "int8")
        self.assertEqual([r["m"] for r in d["results"]], [1, 3, 64])
        self.assertEqual(d["threads"], 1)
        scheme = d["schemes"]["int8"]
        self.assertGreaterEqual(scheme["weight_bytes"], 3 * 128 * 192)
        for r in d["results"]:
            for key in ("ms", "gbps", "tops", "percent_of_ceiling", "ceiling_gbps", "peak_tops"):
                self.summary(r[key])
            self.assertEqual(r["operations"], 2 * 3 * 128 * 192 * r["m"])
            self.assertEqual(r["bytes"], scheme["weight_bytes"] + 8 * 128 * r["m"])
            bound = "memory" if r["m"] < scheme["turning_m"] else "arithmetic"
            if not 0.5 < r["m"] / scheme["turning_m"] < 2:  # each row has its own ceilings
                self.assertEqual(r["bound"], bound)

    def test_every_scheme_is_measured_or_says_why_not(self):
        d = self.document("ffn", *self.TINY, "--weights", "int8,int4,int4-g32-sym")
        for name, scheme in d["schemes"].items():
            rows = [r for r in d["results"] if r["weights"] == name]
            self.assertEqual(len(rows), 0 if "unavailable" in scheme else 3)
        self.assertNotIn("unavailable", d["schemes"]["int8"])

    def test_a_table(self):
        self.assertIn("turns from memory to arithmetic", run("ffn", *self.TINY).stdout)

    def test_bad_flags(self):
        for flags in (["--m", "0"], ["--m", "x"], ["--d-model", 1], ["--weights", "int3"], ["--hadamard", 5]):
            self.assertNotEqual(run("ffn", *flags).returncode, 0, flags)


if __name__ == "__main__":
    unittest.main(verbosity=1)
