"""Keys of the classic generation in checkpoints, as ours; and what a checkpoint or a script of an older generation becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from linger.convert import translate_keys
from linger.quantizers import Quantizer

__all__ = ["KIND", "translate"]

# classic letter behind running_ and scale_ -> our quantizer, of a layer with weights and of a recurrent one
_LAYER = {"x": "input_quantizer", "w": "weight_quantizer", "o": "output_quantizer"}
_RECURRENT = {
    "i": "input_quantizer",
    "h": "hidden_quantizer",
    "iw": "weightih_quantizer",
    "hw": "weighthh_quantizer",
    "o": "output_quantizer",
}
_DROPPED = {"io", "ho", "normal"}  # formats between two steps: the chips fix them
_STATE = re.compile(r"(?:running|scale)_(x|w|o|y|i|h|iw|hw|io|ho|normal)(_reverse)?")
KIND = {
    "iqadd": "add", "iqmul": "mul", "iqdiv": "div", "iqsum": "sum", "iqcat": "cat", "iqsigmoid": "sigmoid",
    "iqtanh": "tanh", "SoftmaxInt": "softmax", "LogSoftmaxInt": "logsoftmax", "function_bmm": "bmm",
}  # fmt: skip
_STATELESS = ("iqclamp", "iqvar", "iq_tensor_quant")
_CALL = re.compile(
    r"(?P<owner>(?:.*\.)?)_linger_(?:round_tensor|iq_tensor)?_?(?P<kind>[A-Za-z_]+?)_(?:_default_index_)?(?P<n>\d+)$"
)


def _entries(quantizer: Quantizer, running: Tensor | None, scale: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """State of a quantizer from a classic running maximum and scale (shape [1] each, either may be missing)."""
    if running is None and scale is None or running is not None and not float(running) > 0:
        return  # nothing was ever seen
    limit = 2.0 ** (quantizer.bits - 1)
    known = None if running is None else float(running)
    if known is None:
        if scale is None or float(scale) <= 0:
            return
        known = (limit - 1) / float(scale)
    exponent = quantizer.bits - 1 - round(torch.log2(torch.tensor(known, dtype=torch.float64)).item())
    factor = float(scale) if scale is not None and float(scale) > 0 else 2.0 ** min(max(exponent, 0), 23)
    flag = "is_init" if quantizer.method == "MOM" else "is_calibrate"
    if quantizer.method == "MOM":
        yield "running_data", torch.tensor(known)
    else:
        yield "learning_data", torch.log2(torch.tensor([known]))
    yield flag, torch.ones((), dtype=torch.uint8)
    yield "scale", torch.tensor(factor)
    yield "n_batches", torch.ones(1, dtype=torch.int64)
    if quantizer.method == "MOM" and quantizer.role == "weight":
        yield "is_init_mom_clamp_weight", torch.ones((), dtype=torch.uint8)


def translate(model: nn.Module, given: MutableMapping[str, Any]) -> list[str]:
    """Rewrite the classic keys of a state dictionary (relative to ``model``) to ours, in place.

    Returns:
        What was done, a sentence per kind; empty where there was nothing.
    """
    said = []
    layers = sum(_layer(name, m, given) for name, m in model.named_modules())
    if layers:
        said.append(f"took running_* and scale_* of {layers} classic layers")
    calls = _calls(given)
    if calls:
        said.append(f"took {calls} classic operators of user code; they are matched by their order")
    return said


def _layer(name: str, m: nn.Module, given: MutableMapping[str, Any]) -> bool:
    prefix = f"{name}." if name else ""
    found = [k for k in given if k.startswith(prefix) and _STATE.fullmatch(k[len(prefix) :])]
    if not found or not any(isinstance(c, Quantizer) for c in m.children()):
        return False
    table = _RECURRENT if hasattr(m, "hidden_quantizer") else _LAYER
    values = {k[len(prefix) :]: given.pop(k) for k in found}
    for reverse in ("", "_reverse"):
        for letter, attribute in table.items():
            child = attribute.replace("_quantizer", f"{reverse}_quantizer")
            quantizer = getattr(m, child, None)
            if not isinstance(quantizer, Quantizer):
                continue
            running, scale = values.get(f"running_{letter}{reverse}"), values.get(f"scale_{letter}{reverse}")
            given.update({f"{prefix}{child}.{k}": v for k, v in _entries(quantizer, running, scale)})
    return True


def _calls(given: MutableMapping[str, Any]) -> int:
    """Operators of user code. Their numbers count per kind there and over all kinds here, so each gets a new one."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for key in list(given):
        place, _, leaf = key.rpartition(".")
        match = _CALL.fullmatch(place)
        if match is None or not _STATE.fullmatch(leaf) and leaf not in ("scale_o", "running_o"):
            continue
        kind = match["kind"].strip("_")
        if kind in KIND:
            found.setdefault((match["owner"], kind, int(match["n"])), {})[leaf] = given.pop(key)
        elif kind in _STATELESS:
            given.pop(key)
    numbers: dict[str, int] = {}
    for (owner, kind, _), values in sorted(found.items()):
        numbers[owner] = numbers.get(owner, -1) + 1
        at = f"{owner}_linger_qtensor_q{KIND[kind]}_{numbers[owner]}"
        states = {"output_quantizer": "o", "input_quantizer.0": "x", "input_quantizer.1": "y"}
        for child, letter in states.items():
            entries = _entries(Quantizer(8), values.get(f"running_{letter}"), values.get(f"scale_{letter}"))
            given.update({f"{at}.{child}.{k}": v for k, v in entries})
    return len(found)


translate_keys(translate)
