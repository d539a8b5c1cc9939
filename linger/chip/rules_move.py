"""Rules of operators that only move codes."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import FLOAT, NodeFacts, rule
from .operators import OPERATORS
from .platforms import SWAP_INNER
from .violation import Violation

_MOST_AXES = 7
PERMUTATIONS = ((0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2))  # of rank 4, on every chip


def _on_codes(n: NodeFacts) -> bool:
    return n.tensor(0).bits != FLOAT


@rule("Transpose")
def transpose(n: NodeFacts) -> Iterator[Violation]:
    """Permutations that the engines have."""
    perm = n.integers("perm")
    if not _on_codes(n) or perm == tuple(sorted(perm)):
        return
    if perm == SWAP_INNER and perm not in n.chip.transposes:
        yield n.error("permutation", perm, f"{PERMUTATIONS}: it crashes", "two permutations: [0,2,3,1], then [0,1,3,2]")
    elif len(perm) > 2 and perm == tuple(range(len(perm)))[::-1]:
        yield n.error("permutation", perm, f"{PERMUTATIONS}", "two permutations, one after the other")
    elif len(perm) == 4 and perm not in (*PERMUTATIONS, SWAP_INNER):
        limit = "no chip was seen to run this permutation"
        yield n.hazard("permutation", perm, limit, f"permutations among {PERMUTATIONS} one after the other")


@rule("Slice")
def slices(n: NodeFacts) -> Iterator[Violation]:
    """One axis per node, step 1."""
    axes, steps = n.tensor(3).size, n.tensor(4).scalar
    if not _on_codes(n):
        return
    if axes is not None and axes > 1:
        yield n.error("axes of a Slice", axes, "1", "one Slice per axis: export the model again")
    if steps not in (None, 1):
        yield n.error("step of a Slice", steps, "1", "a pooling or a convolution with a stride")


@rule("Split")
def split(n: NodeFacts) -> Iterator[Violation]:
    """The packer wants the number of outputs as an attribute."""
    if _on_codes(n) and n.get("dims") is None and "dims" not in n.attributes:
        yield n.error("dims", "none", "the number of outputs", "export the model again")


@rule("Squeeze")
def squeeze(n: NodeFacts) -> Iterator[Violation]:
    """The engine keeps two axes."""
    out = n.outputs[0].shape if n.outputs else None
    if _on_codes(n) and n.tensor(0).bits is not None and out is not None and len(out) < 2:
        limit = "the engine keeps two axes, the result has another shape there"
        yield n.note("rank of a squeezed tensor", len(out), limit)


@rule("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split")
def axes(n: NodeFacts) -> Iterator[Violation]:
    """The packer knows tensors of up to seven axes."""
    for found in (*n.inputs[:1], *n.outputs):
        if (
            found is not None
            and found.shape is not None
            and found.bits not in (None, FLOAT)
            and len(found.shape) > _MOST_AXES
        ):
            yield n.error("rank", len(found.shape), f"at most {_MOST_AXES}", "reshape to fewer axes")


@rule("ShuffleChannel", "Resize")
def venus_only(n: NodeFacts) -> Iterator[Violation]:
    """Two operators of the venus packer, of which one returns zeros."""
    if n.op_type == "Resize" and _on_codes(n):
        yield n.broken("it returns zeros", "a transposed convolution, or keep it in float")
    elif n.op_type == "ShuffleChannel" and OPERATORS["ShuffleChannel"][n.platform].kind != "native":
        yield n.broken("only venus has it", "Reshape, Transpose and Reshape: export the model again")
