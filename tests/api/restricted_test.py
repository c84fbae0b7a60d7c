#!/usr/bin/env python3
"""qllm where a system gives it less than it asks for: restricted_test.py QLLM TINY.gguf REFUSE [unittest arguments].

One CPU by affinity, by cpuset and by quota; mbind refused; no large pages; memory nodes that are not there. Each time the
default is right, there is at most one line about it, and the answer is that of a run without restrictions.
REFUSE is tests/support/refuse.cpp. What this machine cannot set up is skipped and says so.
"""

import json
import os
import subprocess
import sys
import unittest

QLLM = TINY = REFUSE = ""
SKIP_STATUS = 125
TIMEOUT_S = 120
# Two memory nodes of one core each, on whatever machine this is: what is bound to the second is refused by the kernel.
TWO_NODES = {"HWLOC_SYNTHETIC": "numa:2 core:1 pu:1", "HWLOC_THISSYSTEM": "1"}
POLICIES = ["split", "interleave", "local", "replicate"]


def enough_cpus():
    return {0, 1} <= os.sched_getaffinity(0)


def write(file, text):
    with open(file, "w") as out:
        out.write(text)


class Group:
    """A control group of version 1 or 2 for one child process; OSError where it cannot be made."""

    def __init__(self, controller, files):
        v1 = f"/sys/fs/cgroup/{controller}"
        if os.path.isdir(v1):
            self.path = f"{v1}/qllm-test-{os.getpid()}"
        else:
            with open("/sys/fs/cgroup/cgroup.subtree_control") as on:
                if controller not in on.read().split():
                    raise OSError(f"controller {controller} is not switched on")
            self.path = f"/sys/fs/cgroup/qllm-test-{os.getpid()}"
        os.mkdir(self.path)
        try:
            for name, text in files["v1" if os.path.isdir(v1) else "v2"].items():
                write(f"{self.path}/{name}", text)
        except OSError:
            self.remove()
            raise

    def enter(self):
        write(f"{self.path}/cgroup.procs", str(os.getpid()))

    def remove(self):
        os.rmdir(self.path)


class Case(unittest.TestCase):
    known_text = ""

    def start(self, *arguments, before=(), environment=None, enter=None):
        done = subprocess.run([*before, QLLM, *map(str, arguments), "--no-cache"], capture_output=True, text=True, timeout=TIMEOUT_S,
                              env={**os.environ, **(environment or {})}, preexec_fn=enter)  # fmt: skip
        if before and done.returncode == SKIP_STATUS:
            self.skipTest("[skipped] restricted: this system installs no filter")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def text(self, *more, **how):
        """What is generated, and the warnings."""
        done = self.start("run", TINY, "-p", "Hello world", "-n", 24, "--greedy", "--ignore-eos", "--json", *more, **how)
        warnings = [line for line in done.stderr.splitlines() if "warning" in line]
        return json.loads(done.stdout)["text"], warnings

    def machine(self, *more, **how):
        return json.loads(self.start("info", "--json", *more, **how).stdout)["machine"]

    def expected(self):
        if not Case.known_text:
            Case.known_text = self.text("--threads", 1)[0]
        return Case.known_text

    def works(self, workers, word, **how):
        machine = self.machine(**how)
        self.assertEqual(machine["workers"], workers)
        self.assertEqual(sum(word in note for note in machine["notes"]), 1, machine["notes"])
        text, warnings = self.text(**how)
        self.assertEqual(text, self.expected())
        self.assertEqual(warnings, [])

    def in_group(self, controller, files, workers, word):
        try:
            group = Group(controller, files)
        except OSError as error:
            self.skipTest(f"[skipped] restricted: no control group for {controller}: {error}")
        try:
            self.works(workers, word, enter=group.enter)
        finally:
            group.remove()


class Cpus(Case):
    def test_affinity_of_one_cpu(self):
        if not enough_cpus():
            self.skipTest("[skipped] restricted: one CPU only")
        self.works(1, "cpuset: 1 of", enter=lambda: os.sched_setaffinity(0, {1}))

    def test_cpuset_of_one_cpu(self):
        if not enough_cpus():
            self.skipTest("[skipped] restricted: one CPU only")
        self.in_group("cpuset", {"v1": {"cpuset.mems": "0", "cpuset.cpus": "1"}, "v2": {"cpuset.cpus": "1"}}, 1,
                      "cpuset: 1 of")  # fmt: skip

    def test_quota_of_one_cpu(self):
        if not enough_cpus():
            self.skipTest("[skipped] restricted: one CPU only")
        self.in_group("cpu", {"v1": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"},
                              "v2": {"cpu.max": "100000 100000"}}, 1, "quota: 1.00 CPUs")  # fmt: skip

    def test_pinning_refused(self):
        text, warnings = self.text(before=[REFUSE, "sched_setaffinity"])
        self.assertEqual((text, warnings), (self.expected(), []))

    def test_more_workers_than_cpus(self):
        text, _ = self.text("--threads", 4, "--cpus", min(os.sched_getaffinity(0)))
        self.assertEqual(text, self.expected())


class Memory(Case):
    REFUSED = "mbind,set_mempolicy,get_mempolicy,move_pages,migrate_pages"

    def test_one_node_needs_no_binding(self):
        if self.machine()["numa_nodes"] > 1:
            self.skipTest("[skipped] restricted: this machine has several nodes")
        text, warnings = self.text(before=[REFUSE, self.REFUSED])
        self.assertEqual((text, warnings), (self.expected(), []))

    def test_refused_on_several_nodes_is_one_line(self):
        if not enough_cpus():
            self.skipTest("[skipped] restricted: one CPU only")
        for policy in POLICIES:
            with self.subTest(policy=policy):
                text, warnings = self.text("--numa", policy, before=[REFUSE, self.REFUSED], environment=TWO_NODES)
                self.assertEqual(text, self.expected())
                self.assertEqual(len(warnings), 1, warnings)
                self.assertIn("memory binding refused (mbind: Operation not permitted)", warnings[0])

    def test_the_kernel_is_asked_and_believed(self):
        # The second node is not there: half of the weights of `split` are remote, whatever was wished.
        if not enough_cpus() or self.machine()["numa_nodes"] > 1:
            self.skipTest("[skipped] restricted: wants two CPUs on one node")
        done = self.start("info", TINY, "--placement", "--json", environment=TWO_NODES)
        placement = json.loads(done.stdout)["placement"]
        if not placement["known"]:
            self.skipTest("[skipped] restricted: this kernel does not tell where pages lie")
        self.assertFalse(placement["bound"])
        self.assertGreater(placement["remote_bytes"], 0)
        self.assertEqual([(n["node"], n["workers"]) for n in placement["nodes"]], [(0, 1), (1, 1)])
        self.assertEqual(placement["nodes"][1]["weight_bytes"], 0)
        self.assertEqual(placement["remote_bytes_per_step"], placement["remote_bytes"])

    def test_a_kernel_that_does_not_tell(self):
        done = self.start("info", TINY, "--placement", "--json", before=[REFUSE, self.REFUSED])
        self.assertFalse(json.loads(done.stdout)["placement"]["known"])

    def test_no_large_pages(self):
        text, warnings = self.text(before=[REFUSE, "--no-thp", ""])
        self.assertEqual((text, warnings), (self.expected(), []))


class Policies(Case):
    def test_the_same_text_under_all(self):
        for policy in POLICIES:
            with self.subTest(policy=policy):
                self.assertEqual(self.text("--numa", policy)[0], self.expected())

    def test_teams_decode_together(self):
        if not enough_cpus():
            self.skipTest("[skipped] restricted: one CPU only")
        arguments = ["bench", TINY, "--prompt", 4, "--gen", 4, "--batch", 3, "--repeat", 1, "--json", "--numa", "replicate"]
        document = json.loads(self.start(*arguments, environment=TWO_NODES).stdout)
        self.assertEqual(document["threads"], 2)
        placement = document["placement"]
        self.assertEqual([n["workers"] for n in placement["nodes"] if n["workers"] > 0], [1, 1])
        info = json.loads(self.start("info", TINY, "--placement", "--json").stdout)
        total = sum(placement[key] for key in ("local_bytes", "remote_bytes", "nowhere_bytes"))
        one = sum(info["placement"][key] for key in ("local_bytes", "remote_bytes", "nowhere_bytes"))
        self.assertEqual(total, 2 * one)

    def test_on_one_node_all_is_local(self):
        if self.machine()["numa_nodes"] > 1:
            self.skipTest("[skipped] restricted: this machine has several nodes")
        document = json.loads(self.start("info", TINY, "--placement", "--json").stdout)
        placement = document["placement"]
        if not placement["known"]:
            self.skipTest("[skipped] restricted: this kernel does not tell where pages lie")
        self.assertEqual(placement["remote_bytes"], 0)
        self.assertGreater(placement["local_bytes"], 0)
        self.assertEqual(placement["policy"], "split")

    def test_wrong_usage(self):
        done = subprocess.run([QLLM, "info", "--numa", "spread"], capture_output=True)
        self.assertEqual(done.returncode, 2)
        done = subprocess.run([QLLM, "info", "--placement"], capture_output=True)
        self.assertEqual(done.returncode, 2)


def main():
    global QLLM, TINY, REFUSE
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    QLLM, TINY, REFUSE = (os.path.abspath(name) for name in sys.argv[1:4])
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])


if __name__ == "__main__":
    main()
