"""Every "Source: docs/numerics.md" points at a heading that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_sources_point_at_headings():
    page = (ROOT / "docs/numerics.md").read_text(encoding="utf-8")
    headings = {part.strip().lower() for h in re.findall(r"(?m)^#+ (.*)$", page) for part in h.split(":")}
    files = [
        p for d in ("linger", "csrc") for p in (ROOT / d).rglob("*") if p.suffix in {".py", ".h", ".c", ".cpp", ".cu"}
    ]
    missing = {}
    for file in files:
        for titles in re.findall(r'docs/numerics\.md((?:,? (?:and )?"[^"]+")+)', file.read_text(encoding="utf-8")):
            for title in re.findall(r'"([^"]+)"', titles):
                if title.lower() not in headings:
                    missing[str(file.relative_to(ROOT))] = title
    assert not missing
