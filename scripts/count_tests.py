#!/usr/bin/env python3
"""The closing line of ./test: count_tests.py RESULTS.xml (as ctest --output-junit writes it).

A doctest program counts by its test cases, any other test as one. Lines of the form
`[skipped] what: why` that a test prints are counted as skipped and shown. The line goes to stdout
and the exit status is 1 unless something passed and nothing failed.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree

SUMMARY = re.compile(r"\[doctest\] test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed")
SKIPPED = re.compile(r"\[skipped\] .*$", re.M)  # doctest puts file, line and MESSAGE before it
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def count(case):
    """(passed, failed, skipped, notes) of one ctest test."""
    ok = case.get("status") == "run" and case.find("failure") is None
    if case.get("status") in ("disabled", "notrun") or case.find("skipped") is not None:
        return (0, 0, 1, [case.get("name", "?") + ": not run"])
    output = COLOUR.sub("", case.findtext("system-out") or "")
    notes = [line.strip() for line in SKIPPED.findall(output)]
    summary = SUMMARY.search(output)
    if summary is None:
        if notes and ok:
            return (0, 0, len(notes), notes)
        return (1, 0, 0, notes) if ok else (0, 1, 0, notes)
    passed, failed = int(summary.group(2)), int(summary.group(3))
    if not ok and failed == 0:
        failed = 1  # crashed or left non-zero after its summary
    return (passed, failed, len(notes), notes)


SAMPLE = """<testsuite>
<testcase name="unit" status="run"><system-out>isa_test.cpp:3: MESSAGE: [skipped] tier amx: not here
[doctest] test cases:  12 |  12 passed | 0 failed | 3 skipped</system-out></testcase>
<testcase name="op" status="fail"><failure/><system-out>
[doctest] test cases:  5 |  4 passed | 1 failed | 0 skipped</system-out></testcase>
<testcase name="crash" status="fail"><failure/><system-out/></testcase>
<testcase name="script" status="run"><system-out>fine</system-out></testcase>
<testcase name="without" status="run"><system-out>[skipped] model: no file</system-out></testcase>
<testcase name="absent" status="notrun"><skipped/></testcase>
</testsuite>"""


def self_test():
    total = [sum(column) for column in zip(*(count(case)[:3] for case in ElementTree.fromstring(SAMPLE)))]
    if total != [17, 2, 3]:
        print("expected [17, 2, 3], found", total)
        return 1
    return 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        cases = ElementTree.parse(sys.argv[1]).getroot().iter("testcase")
        counts = [(case.get("name"), *count(case)) for case in cases]
    except (OSError, ElementTree.ParseError) as error:
        print(f"count_tests.py: {error}", file=sys.stderr)
        print("0 passed, 1 failed, 0 skipped")
        return 1
    for _, _, _, _, notes in counts:
        for note in notes:
            print(note, file=sys.stderr)
    failing = [name for name, _, failed, _, _ in counts if failed]
    if failing:
        print("failed:", ", ".join(failing), file=sys.stderr)
    passed, failed, skipped = (sum(c[i] for c in counts) for i in (1, 2, 3))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed > 0 and failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
