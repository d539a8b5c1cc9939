"""``python -m tests.zoo > docs/zoo.md``: which chips take the nets of the zoo, and what calibration alone costs."""

from __future__ import annotations

import re

import linger
from linger.chip import Violation
from linger.onnx import CheckReport

from . import ZOO, Net
from .stages import chip, fresh, key, sqnr

PLATFORMS = {"arcs": "arcs, mars", "venusA": "venusA", "venus": "venus"}
HEAD = """# Nets on the chips

Written by `python -m tests.zoo > docs/zoo.md` from `tests/zoo`: published architectures, re-written a few channels wide. A test
trains each of them through both stages, exports it and compares: evaluation and file have the same integers.

* **yes**: `linger.check` has no errors; the shipped engine returns the file's integers, packed with the options that are named.
* Other cells name what `check` calls an error, before training: operators that compute in float (in italics), operators that the
  shipped engine or packer does not have right (the table below says why), limits of the chip.
* dB: signal to quantization noise of all outputs after 30 steps in float and calibration on four
  batches, before any training in integers.

| net | arcs, mars | dB | venusA | dB | venus | dB |
|---|---|---|---|---|---|---|"""


def cell(report: CheckReport) -> str:
    """What a chip says to a net."""
    if report.ok:
        return "**yes**" + "".join(f", `{option}`" for option in report.options)
    names = {key(v): f"*{key(v)}*" if v.what == "float operator" else f"`{key(v)}`" for v in report.errors}
    return ", ".join(names[k] for k in sorted(names, key=str.lower))


def why(v: Violation, platform: str) -> str:
    """The law that a finding names, for any net."""
    if v.what == "float operator":
        return v.limit.partition(":")[0].replace(platform, "the chip")
    return f"the chip takes {v.limit}" if v.refused else re.sub(r"2\*\*1[5-9] ", "the scale ", v.limit)


def row(name: str, net: Net, reasons: dict[tuple[str, str], list[str]]) -> str:
    """One line of the table; what is an error is added to ``reasons``: (name, why and what helps) -> chips."""
    cells = []
    for platform, chips in PLATFORMS.items():
        with chip(platform):
            report = linger.check(fresh(net), platform, net.inputs())
            cells += [cell(report), f"{sqnr(net):.1f}"]
        for v in report.errors:
            said = reasons.setdefault((key(v), f"{why(v, platform)} | {v.remedy}"), [])
            said += [chips] if chips not in said else []
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the page."""
    reasons: dict[tuple[str, str], list[str]] = {}
    print(HEAD)
    for name, net in ZOO.items():
        print(row(name, net, reasons), flush=True)
    print("\n| what | chips | why | what helps |\n|---|---|---|---|")
    for (what, why), chips in sorted(reasons.items()):
        print(f"| `{what}` | {', '.join(chips)} | {why} |")


if __name__ == "__main__":
    main()
