"""``linger.migrate``: what a checkpoint or a script of an older generation becomes."""

from __future__ import annotations

import ast
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from linger.convert.state import open_checkpoint

from .checkpoints import _CALL, _STATE, KIND

# classic call -> what the 3.x form writes
_CALLS = {
    "trace_layers": "not needed: linger.constrain and linger.init find the pairs; pass example_inputs=... where code is dynamic",
    "trace_layer": "not needed: linger.constrain and linger.init find the pairs",
    "normalize_layers": "model = linger.constrain(model, config_file='config.yaml'), limits under clamp_info",
    "normalize_module": "a section of the file with clamp_info: {clamp_activation_value: ...}",
    "disable_normalize": "linger.constrain(..., disable_submodel=('name*',))",
    "disable_quant": "linger.init(..., disable_submodel=('name*',))",
    "quant_module": "a section of the file with quant_info: {weight_bits: 4, input_bits: 8, output_bits: 8}",
    "quant_module_by_type": "a section of the file with quant_info",
    "quant_tensor": "not needed: a float tensor is quantized where a quantized operator takes it",
    "SetBnMomentumUpdate": "linger.freeze_statistics(model, batch_norm=True)",
    "SetFunctionBmmQuant": "operators: {bmm: false} in the file (bmm is quantized by default)",
    "SetPlatFormQuant": "platform: arcs (or venus, mars, venusA) in the file",
    "OnnxRunner": "linger.onnx.OnnxRunner(path).run(inputs)",
    "FuseBNIntoConv": "not needed: linger.init folds every BatchNorm",
    "register_qmodule": "not available: the layers are a table of the library",
}
_KEYWORDS = {
    ("init", "quant_modules"): "linger.init(model, config_file=..., disable_module=(classes that stay in float,))",
    ("init", "parameter_bits"): "quant_info: {weight_bits: 4} in the file",
}
_OBSOLETE = (
    "torch.onnx.export of an initialised model: write linger.onnx.export(model, args, path), or put the call into "
)
_REDIRECT = "`with linger.compat.redirect_torch_onnx_export():`"


@dataclass
class Migration:
    """What :func:`migrate` found; prints as a list.

    Attributes:
        source: The file.
        kind: ``checkpoint`` or ``script``.
        rows: (what is there, what it becomes).
    """

    source: str
    kind: str
    rows: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        head = (
            f"{self.source}: {self.kind} of an older generation" if self.rows else f"{self.source}: nothing to change"
        )
        return "\n".join([head, *(f"- {was}\n    -> {now}" for was, now in self.rows)])

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def migrate(checkpoint_or_script_path: str | os.PathLike[str]) -> Migration:
    """Say what a classic or 3.x checkpoint or script becomes; nothing is changed.

    Both run as they are: this names the current form of each line and each group of keys.

    Args:
        checkpoint_or_script_path: A ``.py`` file, or a file of ``torch.save`` (no code in it is run).

    Raises:
        OSError: The file cannot be read.
        ValueError: It is neither, or the script has a syntax error.
    """
    path = os.fspath(checkpoint_or_script_path)
    if path.endswith(".py"):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return Migration(path, "script", _script(text, path))
    return Migration(path, "checkpoint", _checkpoint(path))


def _script(text: str, path: str) -> list[tuple[str, str]]:
    try:
        tree = ast.parse(text, path)
    except SyntaxError as error:
        raise ValueError(f"migrate: {path}, line {error.lineno}: {error.msg}") from error
    rows = []
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    for call in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
        name = ast.unparse(call.func)
        last = name.rpartition(".")[2]
        at = f"line {call.lineno}: {name}(...)"
        if name == "torch.onnx.export":
            rows.append((at, _OBSOLETE + _REDIRECT))
        elif last in _CALLS and name != "linger.onnx.OnnxRunner" and (name.startswith("linger.") or last == name):
            rows.append((at, _CALLS[last]))
        elif last.startswith("SetIQTensor"):
            rows.append((at, f"operators: {{{last.removeprefix('SetIQTensor').lower()}: false}} in the file"))
        for keyword in call.keywords:
            instead = _KEYWORDS.get((last, str(keyword.arg)))
            if instead is not None:
                rows.append((f"line {call.lineno}: {name}(..., {keyword.arg}=...)", instead))
    return rows


def _checkpoint(path: str) -> list[tuple[str, str]]:
    state = open_checkpoint(path, None)
    groups: dict[tuple[str, str], int] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        place, _, leaf = key.rpartition(".")
        call = _CALL.fullmatch(place)
        if call is not None and call["kind"].strip("_") in KIND:
            group = (
                f"{call['kind'].strip('_')} operators",
                f"_linger_qtensor_q{KIND[call['kind'].strip('_')]}_<n>, by their order",
            )
        elif _STATE.fullmatch(leaf):
            group = ("running_* and scale_* of layers", "the quantizers' running_data and scale")
        elif leaf == "_linger_ignore_parameter" or ".conv.conv." in f".{key}":
            group = ("fused BatchNorms", "folded into the layer in front when the model is initialised")
        elif "_quantizer." in key or "_linger_qtensor_" in key:
            group = ("quantizers of linger 3.x", "the same keys")
        else:
            continue
        groups[group] = groups.get(group, 0) + 1
    return [(f"{n} tensors: {was}", now) for (was, now), n in groups.items()]
