#!/usr/bin/env bash
# English prose for the quality figures: the first BYTES of the plain paragraphs of the Debian package `anarchism`
# (secE*.html; any Debian or Ubuntu has it). usage: get_prose.sh OUT.txt [BYTES, default 68000]
set -euo pipefail
out=$(realpath -m "${1:?usage: get_prose.sh OUT.txt [BYTES]}")
bytes=${2:-68000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q anarchism >&2
dpkg -x anarchism_*.deb .
python3 - "$out" "$bytes" <<'PY'
import glob
import html
import re
import sys

paragraphs = []
for path in sorted(glob.glob("usr/share/doc/anarchism/html/secE*.html")):
    with open(path, encoding="utf-8", errors="replace") as f:
        page = f.read()
    for body in re.findall(r"<p\b[^>]*>(.*?)(?=</p>|<p\b|$)", page, re.S | re.I):
        text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", body))).strip()
        if len(text) > 150:
            paragraphs.append(text)
prose = "\n\n".join(paragraphs).encode()[: int(sys.argv[2])].decode("utf-8", "ignore")
with open(sys.argv[1], "wb") as f:
    f.write(prose.encode())
PY
sha256sum "$out"
