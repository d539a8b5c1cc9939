"""Keys of the classic generation in checkpoints, as ours; and what a checkpoint or a script of an older generation becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from linger.convert import translate_keys
from linger.quantizers import Quantizer

# classic letter behind running_ and scale_ -> our quantizer, of a layer with weights and of a recurrent one
_LAYER = {"x": "input_quantizer", "w": "weight_quantizer", "o": "output_quantizer"}
_RECURRENT = {
    "i": "input_quantizer",
    "h": "hidden_quantizer",
    "iw": "weightih_quantizer",
    "hw": "weighthh_quantizer",
    "o": "output_quantizer",
}
_STATE = re.compile(r"(?:running|scale)_(x|w|o|y|i|h|iw|hw|io|ho|normal)(_reverse)?")
_THRESHOLDS = re.compile("(?:min|max)_thresh|(?:running|scale)_[xo]")  # of ReLU6: a limit keeps the format of its input
_CALL_STATES = {"o": "output_quantizer", "x": "input_quantizer.0", "y": "input_quantizer.1"}
_WITHOUT = {("avg_pool", "o"), ("avg_pool", "y")}  # an average keeps the format of its input
KIND = {
    "iqadd": "add", "iqmul": "mul", "iqdiv": "div", "iqsum": "sum", "iqcat": "cat", "iqsigmoid": "sigmoid",
    "iqtanh": "tanh", "SoftmaxInt": "softmax", "LogSoftmaxInt": "logsoftmax", "function_bmm": "bmm",
}  # fmt: skip
_STATELESS = ("iqclamp", "iqvar")
_QUANT = re.compile(
    r"(?P<owner>(?:.*\.)?)_linger_round_tensor_iq_tensor_quant_(?P<n>.+)"
)  # linger.quant_tensor, by its name
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
    said: list[str] = []
    left: list[str] = []
    layers = sum(_layer(name, m, given, left) for name, m in model.named_modules())
    if layers:
        said.append(f"took running_* and scale_* of {layers} classic layers")
    calls = _calls(given, left)
    if calls:
        said.append(f"took {calls} classic operators of user code; they are matched by their order")
    if left:
        said.append(f"left out {', '.join(left)}: the chips fix these formats")
    return said


def _take(prefix: str, given: MutableMapping[str, Any], pattern: re.Pattern[str]) -> dict[str, Any]:
    """Take the values of one module whose names match out of a state."""
    found = [k for k in given if k.startswith(prefix) and pattern.fullmatch(k[len(prefix) :])]
    return {k[len(prefix) :]: given.pop(k) for k in found}


def _operator_of(m: nn.Module) -> str | None:
    """The operator that a module calls once, and whose state the classic generation kept on it."""
    if isinstance(m, (nn.AvgPool1d, nn.AvgPool2d)):
        return "avg_pool"
    return getattr(type(m), "kind", None) or None


def _layer(name: str, m: nn.Module, given: MutableMapping[str, Any], left: list[str]) -> bool:
    prefix, kind = f"{name}." if name else "", _operator_of(m)
    if isinstance(m, nn.ReLU6):
        left += [prefix + key for key in _take(prefix, given, _THRESHOLDS)]
        return False
    quantized = any(isinstance(c, Quantizer) for c in m.children())
    values = _take(prefix, given, _STATE) if quantized or kind else {}
    if not values:
        return False
    if kind and not quantized:
        at, places = f"{prefix}_linger_qtensor_q{kind}_0.", _CALL_STATES
        pairs = [(child, letter, Quantizer(8)) for letter, child in places.items() if (kind, letter) not in _WITHOUT]
    else:
        at, pairs = prefix, []
        for letter, attribute in (_RECURRENT if hasattr(m, "hidden_quantizer") else _LAYER).items():
            for reverse in ("", "_reverse"):
                child = attribute.replace("_quantizer", f"{reverse}_quantizer")
                quantizer = getattr(m, child, None)
                if isinstance(quantizer, Quantizer):
                    pairs.append((child, letter + reverse, quantizer))
    taken = set()
    for child, letter, quantizer in pairs:
        taken |= {f"running_{letter}", f"scale_{letter}"}
        entries = _entries(quantizer, values.get(f"running_{letter}"), values.get(f"scale_{letter}"))
        given.update({f"{at}{child}.{k}": v for k, v in entries})
    left += [prefix + key for key in values if key not in taken]
    return True


def _calls(given: MutableMapping[str, Any], left: list[str]) -> int:
    """Operators of user code. Their numbers count per kind there and over all kinds here, so each gets a new one."""
    found: dict[tuple[str, str, Any], dict[str, Any]] = {}
    for key in list(given):
        place, _, leaf = key.rpartition(".")
        named = _QUANT.fullmatch(place)
        if named is not None and leaf in ("running_o", "scale_o"):
            letter = leaf.replace("_o", "_x")  # one quantizer, that of the operand
            found.setdefault((named["owner"], "quant_tensor", named["n"]), {})[letter] = given.pop(key)
            continue
        match = _CALL.fullmatch(place)
        if match is None or not (_STATE.fullmatch(leaf) or leaf == "y"):
            continue
        kind = match["kind"].strip("_")
        if kind in KIND and leaf != "y":
            found.setdefault((match["owner"], kind, int(match["n"])), {})[leaf] = given.pop(key)
        elif kind in (*KIND, *_STATELESS):
            given.pop(key)
            left.append(key)
    numbers: dict[str, int] = {}
    for (owner, kind, _), values in sorted(found.items()):
        numbers[owner] = numbers.get(owner, -1) + 1
        at = f"{owner}_linger_qtensor_q{KIND.get(kind, kind)}_{numbers[owner]}"
        for letter, child in _CALL_STATES.items():
            entries = _entries(Quantizer(8), values.get(f"running_{letter}"), values.get(f"scale_{letter}"))
            given.update({f"{at}.{child}.{k}": v for k, v in entries})
    return len(found)


translate_keys(translate)
