"""What runs around a converted model: formats on tensors, owners, call sites, interception, and the tape of an export."""

from __future__ import annotations

from .ahead import FOLDED, FOLDED_INTO, Ahead, ahead, behind_norm, link
from .functional import FACTORIES, create_from_state, factory, operator_at_site, register_state_hooks
from .graph import CodeValue, NodeReader, reader_of, reads
from .guards import guarded, is_small
from .islands import Island, islands_of
from .layer_calls import LAYER_FUNCTIONS, own_arithmetic, takes_its_own_forward
from .mode import Interception, tensors
from .owners import (
    LEFT_FLOAT,
    Composite,
    LayerLookup,
    Leaf,
    active,
    attach,
    base_class,
    can_attach,
    derive,
    float_region,
    is_owner,
    runs_user_code,
    walk,
)
from .sizes import Dim
from .spellings import HANDLERS, METADATA, NAMES, OPERATOR_OF, SILENT, SPELLINGS, handles, resolve
from .state import current_tape, end_forward, remember, remembered, state
from .tag import (
    CellFormat,
    Format,
    coded,
    codes,
    fixed_output,
    follow,
    info,
    is_quantized,
    overwritten,
    scale_value,
    tag,
    untag,
)
from .tape import FloatWriter, Tape
from .tape_entries import ChipOutput, FloatCall, Moved, Node, Operand, Value

__all__ = [
    "FACTORIES",
    "FOLDED",
    "FOLDED_INTO",
    "HANDLERS",
    "LAYER_FUNCTIONS",
    "LEFT_FLOAT",
    "METADATA",
    "NAMES",
    "OPERATOR_OF",
    "SILENT",
    "SPELLINGS",
    "Ahead",
    "CellFormat",
    "ChipOutput",
    "CodeValue",
    "Composite",
    "Dim",
    "FloatCall",
    "FloatWriter",
    "Format",
    "Interception",
    "Island",
    "LayerLookup",
    "Leaf",
    "Moved",
    "Node",
    "NodeReader",
    "Operand",
    "Tape",
    "Value",
    "active",
    "ahead",
    "attach",
    "base_class",
    "behind_norm",
    "can_attach",
    "coded",
    "codes",
    "create_from_state",
    "current_tape",
    "derive",
    "end_forward",
    "factory",
    "fixed_output",
    "float_region",
    "follow",
    "guarded",
    "handles",
    "info",
    "is_owner",
    "is_quantized",
    "is_small",
    "islands_of",
    "link",
    "operator_at_site",
    "overwritten",
    "own_arithmetic",
    "reader_of",
    "reads",
    "register_state_hooks",
    "remember",
    "remembered",
    "resolve",
    "runs_user_code",
    "scale_value",
    "state",
    "tag",
    "takes_its_own_forward",
    "tensors",
    "untag",
    "walk",
]
