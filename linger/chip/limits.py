"""All rules of a chip on one node: what ``linger.check`` lists and ``linger.onnx.export`` refuses."""

from __future__ import annotations

from . import rules_conv, rules_functions, rules_math, rules_move, rules_pool, rules_recurrent  # noqa: F401  they register
from .facts import RULES, NodeFacts
from .operators import OPERATORS
from .platforms import limits_of
from .violation import Violation

# initializers that the packer keeps in the parameter memory and brings into the shared one layer by layer
_PARAMETERS = frozenset(
    """Conv2dInt Conv1dInt ConvTranspose2dInt LinearInt BatchNorm2dInt LayerNormInt Gather LSTMInt GRUInt BmmInt iqAdd
    iqMul""".split()
)


def check_node(node: NodeFacts) -> list[Violation]:
    """Every limit that a node breaks and every hazard it meets, each once.

    Args:
        node: Its shapes may be unknown; rules that need them then say nothing.
    """
    row = OPERATORS.get(node.op_type)
    found: dict[Violation, None] = {}
    if row is not None and row[node.platform].kind == "refused":
        found[
            node.error("operator", node.op_type, row[node.platform].note, "another operator, or keep it in float")
        ] = None
    for rule in RULES.get(node.op_type, ()):
        found.update(dict.fromkeys(rule(node)))
    found.update(dict.fromkeys(_memory(node)))
    return list(found)


def parameter_bytes(node: NodeFacts) -> dict[int, int]:
    """Index of an input -> bytes of the parameter there, as the packer stores it."""
    if node.op_type not in _PARAMETERS:
        return {}
    found = {}
    for i, x in enumerate(node.inputs):
        if x is not None and x.constant and x.size is not None and x.bits is not None:
            packed = int(node.get("w_bits", 8)) == 4 and x.bits == 8
            found[i] = -(-x.size // 2) if packed else x.size * max(x.bits, 8) // 8
    return found


def _memory(node: NodeFacts) -> list[Violation]:
    """Parameters and activations against the shared memory; where they are placed is decided when the file is packed."""
    room, found = node.chip.shared_bytes, []
    for size in parameter_bytes(node).values():
        if size > room:
            remedy = "a smaller layer, or place it in PSRAM when packing"
            limit = f"the shared memory has {room} bytes"
            found.append(node.error("parameter", f"{size} bytes", limit, remedy, refused=False))
    total = sum(
        x.size * x.bits // 8
        for x in (*node.inputs[:1], *node.outputs[:1])
        if x and x.size and x.bits and not x.constant
    )
    if total > room:
        limit = f"input and result do not fit into the shared memory of {room} bytes"
        remedy = "a smaller map, or place tensors in PSRAM when packing"
        found.append(node.error("activations", f"{total} bytes", limit, remedy, refused=False))
    return found


def check_total(platform: str, parameters: int) -> list[Violation]:
    """The parameters of a whole model, in bytes, against the memory that holds them."""
    room = limits_of(platform).psram_bytes
    if parameters <= room:
        return []
    limit, remedy = f"the PSRAM has {room} bytes", "a smaller model, or 4-bit weights"
    return [Violation("(model)", "parameters", f"{parameters} bytes", limit, remedy, "error", False)]


__all__ = ["check_node", "check_total", "parameter_bytes"]
