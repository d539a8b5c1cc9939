"""Operators that copy codes: exact, in the format of their input."""

from __future__ import annotations

from .floats import keep
from .node import BOTH_FORMS, Node, writes


@writes("Relu", forms=BOTH_FORMS)
def write_relu(n: Node) -> None:
    """``max(x, 0)``; mostly in the saturation of the layer in front."""
    v = n.value(0)
    n.put(v.name if v.positive else n.g.op("Relu", v.name), v.bits, positive=v.bits > 0)


@writes("Identity", forms=BOTH_FORMS)
def write_identity(n: Node) -> None:
    """The input itself."""
    n.put_like(n.value(0).name)


@writes("Reshape", forms=BOTH_FORMS)
def write_reshape(n: Node) -> None:
    """Other sizes."""
    allow = {"allowzero": 1} if n.integer("allowzero", 0) else {}
    if allow and 0 in n.whole(1):
        n.refuse("a size of 0; opset 13 has no allowzero")
    n.put_like(n.g.op("Reshape", n.value(0).name, n.value(1).name))


@writes("Flatten", forms=BOTH_FORMS)
def write_flatten(n: Node) -> None:
    """``[N, rest]`` of codes whatever the axis."""
    n.put_like(n.g.op("Flatten", n.value(0).name, axis=1 if n.is_quantized() else n.integer("axis", 1)))


@writes("Transpose", forms=BOTH_FORMS)
def write_transpose(n: Node) -> None:
    """Axes in another order."""
    order = n.integers("perm", None, tuple(reversed(range(len(n.shape(0))))))
    n.put_like(n.g.op("Transpose", n.value(0).name, perm=order))


@writes("Squeeze", "Unsqueeze", forms=BOTH_FORMS)
def write_axes_of_one(n: Node) -> None:
    """Axes of one element, gone or new; codes keep two axes, which only the sizes say."""
    rank = len(n.shape(0))
    if n.has("axes"):
        axes = list(n.integers("axes"))
    elif n.has_input(1):
        axes = n.whole(1)
    else:
        axes = [i for i, size in enumerate(n.shape(0)) if size == 1]
    x, left = n.value(0).name, rank - len(axes)
    if n.op_type == "Squeeze" and left != len(n.result()):
        sizes = n.result()
        n.put_like(n.g.op("Reshape", x, n.g.ints(*(-1 if size is None else size for size in sizes))))
    elif not axes:
        n.put_like(x)
    else:
        n.put_like(n.g.op(n.op_type, x, n.g.ints(*axes)))


@writes("Slice", forms=BOTH_FORMS)
def write_slice(n: Node) -> None:
    """A part of one axis of codes, or of several of floats."""
    n.put_like(n.g.op("Slice", *(n.value(i).name if n.has_input(i) else "" for i in range(n.n_inputs))))


@writes("Split", forms=BOTH_FORMS)
def write_split(n: Node) -> None:
    """Parts of one axis."""
    axis = n.integer("axis", 0)
    sizes = [n.result(i)[axis] for i in range(n.n_outputs)]
    extra = [] if None in sizes else [n.g.ints(*(size or 0 for size in sizes))]
    for i, part in enumerate(n.g.ops("Split", [n.value(0).name, *extra], n.n_outputs, axis=axis)):
        n.put_like(part, i)


@writes("Gather")
def write_gather(n: Node) -> None:
    """Rows of a table of codes, or of codes; floats and shapes as they are."""
    v = n.value(0)
    made = n.g.op("Gather", v.name, n.value(1).name, axis=n.integer("axis", 0))
    n.put(made, v.bits, positive=v.positive)


@writes("ShuffleChannel", forms=BOTH_FORMS)
def write_shuffle(n: Node) -> None:
    """Groups of channels, taken in turn."""
    groups, axis, shape = n.integer("groups"), n.integer("axis", 1) % 4, n.shape(0)
    size = shape[axis]
    if size is None:
        n.refuse("the number of channels is open")
    free = [-1 if s is None else s for s in shape]
    order = list(range(5))
    order[axis], order[axis + 1] = axis + 1, axis
    x = n.g.op("Reshape", n.value(0).name, n.g.ints(*free[:axis], groups, size // groups, *free[axis + 1 :]))
    n.put_like(n.reshaped(n.g.op("Transpose", x, perm=order)))


@writes("iqPad", forms=BOTH_FORMS)
def write_pad(n: Node) -> None:
    """Zeros around height and width."""
    widths = n.whole(1)
    half = len(widths) // 2
    zeros = [0] * (4 - half)
    n.put_like(n.g.op("Pad", n.value(0).name, n.g.ints(*zeros, *widths[:half], *zeros, *widths[half:])))


@writes("Shape", "Size", forms=BOTH_FORMS)
def write_sizes(n: Node) -> None:
    """Read from the shape alone."""
    keep(n)
