"""docs/operators.md, written from the tables: ``python -m linger.chip > docs/operators.md``."""

from __future__ import annotations

from .engines import SHIPPED, Engine, engine_of
from .operators import OPERATORS, Support
from .platforms import LIMITS, Limits

_HEAD = """# Operators and chips

Written by `python -m linger.chip > docs/operators.md` from `linger/chip`; a test compares.

* **native**: the chip has the operator.
* **rewrite**: an exact expression in operators that the chip has; training, evaluation and file all use its arithmetic.
* **island**: computed in float between a Dequant and a Quant. Files hold it, `OnnxRunner` executes it, no chip does.
* **refused**: an error that says why.

Numbers are the widths of the result in bits where there is another one than 8. `linger.check(model, platform, example_inputs)`
lists what a model breaks; `linger.onnx.export` refuses by the same rules, `linger.init` tells what follows from the layers.

## Operators

| in the file | in torch | arcs, mars | venusA | venus |
|---|---|---|---|---|
"""

_LIMITS = """
## Limits

| | arcs, mars | venusA | venus |
|---|---|---|---|
"""


_ENGINES = f"""
## Engines

What engine {SHIPPED} computes otherwise, and the exporter writes in another form or `linger.check` calls an error;
docs/numerics.md has the forms. `later` has none of these rows.

| | arcs, mars | venusA | venus |
|---|---|---|---|
"""


def _faults(row: Engine) -> dict[str, str]:
    """What of a row of the engines a user can run into."""

    def above(size: int, unit: str) -> str:
        return f"above {size} {unit}" if size else "-"

    scratch = [f"{op}: {each} per element" + f" + {more}" * bool(more) for op, (each, more) in row.scratch.items()]
    return {
        "averages of a size that is no power of two": above(row.average_elements, "elements"),
        "averages of a power of two": above(row.average_sums, "elements"),
        "rows of an average pooling": above(row.average_rows, "bytes"),
        "strides of an average pooling": f"other than {', '.join(map(str, row.average_strides))}"
        if row.average_strides
        else "-",
        "average over the whole map": "-" if row.average_whole else "yes",
        "scratch memory in bytes": ", ".join(scratch),
        "options of the packer": ", ".join(f"{op}: `{option}`" for op, option in row.packing.items()) or "-",
        "others": ", ".join(sorted(row.defects)),
    }


def _cell(cell: Support) -> str:
    bits = "" if cell.bits == (8,) or cell.kind in ("island", "refused") else f" {', '.join(map(str, cell.bits))}"
    return f"**{cell.kind}**{bits}" + (f": {cell.note}" if cell.note else "")


def _size(size: int) -> str:
    return "-" if size == 0 else f"{size // 1024} KiB"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _rows(chip: Limits) -> dict[str, str]:
    """What of a row of ``LIMITS`` a user can run into."""

    def widths(bits: tuple[int, ...]) -> str:
        return ", ".join(map(str, bits)) or "-"

    return {
        "kernel of a convolution, dilation 1": f"1..{chip.max_kernel}",
        "kernel of a 1-D, dilated or transposed convolution": f"1..{chip.max_kernel_dilated}",
        "stride, at most the kernel": widths(chip.strides),
        "padding, at most the kernel": f"0..{chip.max_pad}",
        "dilation": widths(chip.dilations),
        "input rows of a convolution": _size(chip.conv_row_bytes),
        "input rows of a depthwise convolution": _size(chip.conv_row_bytes_depthwise),
        "depthwise weight": _size(chip.depthwise_bytes),
        "weight of one output channel": _size(chip.filter_bytes),
        "kernel of a max pooling that does not cover an axis": f"1..{chip.max_pool_kernel}",
        "input of an average pooling": _size(chip.pool_row_bytes),
        "second matrix of a product": _size(chip.bmm_bytes),
        "4-bit weights: convolution, linear": f"{_yes(chip.conv4)}, {_yes(chip.linear4)}",
        "samples of a batch that convolution and average pooling compute": "all" if chip.batched else "the first",
        "shared memory, PSRAM": f"{_size(chip.shared_bytes)}, {_size(chip.psram_bytes)}",
    }


def operators_page() -> str:
    """The text of docs/operators.md."""
    lines = []
    for name, row in OPERATORS.items():
        first = row["arcs"]
        others = ("same" if row[p] == first and first.note else _cell(row[p]) for p in ("venusA", "venus"))
        cells = [_cell(first), *others]
        lines.append(f"| `{name}` | {row.torch} | " + " | ".join(cells) + " |")
    columns = [_rows(LIMITS[platform]) for platform in ("arcs", "venusA", "venus")]
    limits = [f"| {what} | " + " | ".join(c[what] for c in columns) + " |" for what in columns[0]]
    faults = [_faults(engine_of(SHIPPED, platform)) for platform in ("arcs", "venusA", "venus")]
    engines = [f"| {what} | " + " | ".join(c[what] for c in faults) + " |" for what in faults[0]]
    return _HEAD + "\n".join(lines) + "\n" + _LIMITS + "\n".join(limits) + "\n" + _ENGINES + "\n".join(engines) + "\n"
