"""What torch does to a quantizer: assignments, moves between devices, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

SMALLEST_RANGE = 1e-6  # a range never gets below this: an all-zero tensor has a scale too


class TorchState(nn.Module):
    """The part of a quantizer that keeps its state float32 and in place, and reads checkpoints of either method."""

    method: str
    scale: Tensor
    _flag: str
    _young: bool
    _ready: bool
    _clamped: bool

    def _look(self) -> None:
        """Reads what is kept on the host."""
        raise NotImplementedError

    def _grow(self) -> None:
        """Completes statistics that have seen only zeros."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        """Writes a number or tensor given for ``running_data``, ``learning_data`` or ``scale`` into the tensor there.

        Optimizers and kernels keep seeing it.
        """
        if name in ("running_data", "learning_data", "scale") and not isinstance(value, nn.Parameter):
            mine = self._buffers.get(name) if name != "learning_data" else self._parameters.get(name)
            if (
                mine is not None and not mine.is_meta
            ):  # load_state_dict(assign=True) gives a model on "meta" its tensors
                with torch.no_grad():
                    mine.copy_(torch.as_tensor(value).reshape(mine.shape))
                    if name == "learning_data":
                        self._look()
                return
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to another device but never to another dtype: exponents and averages need float32."""

        def keep_dtype(t: Tensor) -> Tensor:
            out = fn(t)
            return out if out.dtype == t.dtype else t.to(out.device)

        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Accepts one-element tensors of any shape, statistics of the other method, and states without some or all keys."""
        self._translate(state_dict, prefix)
        for name, mine in (*self._parameters.items(), *self._buffers.items()):
            given = state_dict.get(prefix + name)
            if mine is not None and isinstance(given, Tensor) and given.numel() == 1:
                state_dict[prefix + name] = given.detach().reshape(mine.shape).to(mine.dtype)
        mine_missing: list[str] = []
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, mine_missing, unexpected_keys, error_msgs
        )
        self._ready = self._clamped = False  # keys that are missing keep what is there: a float checkpoint has none
        for name in self._non_persistent_buffers_set:
            mine = self._buffers[name]
            if mine is not None and mine.is_meta:
                self._buffers[name] = torch.zeros_like(mine, device=self.scale.device)
        if prefix + "learning_data" in state_dict:
            self._look()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self._young:
            self._grow()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _translate(self, state: dict[str, Any], prefix: str) -> None:
        """Rewrites statistics of the other method: threshold = log2 of the average, flags alike."""
        theirs, limit = ("is_calibrate", "learning_data") if self.method == "MOM" else ("is_init", "running_data")
        given = state.pop(prefix + limit, None)
        if isinstance(given, Tensor):
            if self.method == "MOM":
                state[prefix + "running_data"] = torch.exp2(given.detach().float())
            elif bool(state.get(prefix + theirs, True)):
                state[prefix + "learning_data"] = torch.log2(given.detach().float().clamp_min(SMALLEST_RANGE))
        flag = state.pop(prefix + theirs, None)
        if flag is not None:
            state[prefix + self._flag] = flag
        if self.method == "TQT":
            state.pop(prefix + "is_init_mom_clamp_weight", None)
