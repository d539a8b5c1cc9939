"""The quantizer of one tensor: statistics, the power-of-two scale that follows from them, quantization."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import UnsupportedError
from ..settings import QuantMode
from .calibration import bound, calibrating, finalise, in_float, observe, unobserved
from .running import in_ddp_forward, in_recomputation
from .torch_state import SMALLEST_RANGE, TorchState

if TYPE_CHECKING:
    pass

_log = logging.getLogger("linger")
METHODS = ("MOM", "TQT")
ROLES = ("activation", "weight", "bias")
STRATEGIES = ("RANGE_MEAN", "LEAST_ERROR")
FLOOR = (-19.94, -19.93)  # around log2 of the smallest range: a TQT threshold that has seen only zeros; observe.h
FIRST_THRESHOLD = 2.1  # log2; what TQT starts from before any data


class State(NamedTuple):
    """Copy of everything a calibration may change in a quantizer."""

    limit: Tensor
    initialised: Tensor
    scale: Tensor
    n_batches: Tensor


class Quantizer(TorchState):
    """Watches one tensor of a layer and turns it into integers with a power-of-two scale.

    MOM keeps the moving average ``running_data`` of the largest absolute value; TQT learns ``learning_data``, the log2
    of the threshold. Both give ``scale`` = 2**e with e in [0, 23]. All state is float32 whatever the model's dtype, and
    a training step reads none of it on the host.

    Args:
        bits: Width of the codes, 2..32.
        method: ``"MOM"`` or ``"TQT"``.
        role: ``"activation"``, ``"weight"`` or ``"bias"``. A bias has no statistics: its exponent is the sum of those of
            input and weight; its buffers exist because 3.x checkpoints have them.
        rounding: Rounding of activation codes. Weights and biases round half to even.
        calibrate: Name of the calibration method (``abs_max``, ``top_10``, ``mse``, ``w_like`` or a registered one).
        strategy: How the exponent follows from the data: ``RANGE_MEAN`` or ``LEAST_ERROR``.

    Attributes:
        name: Qualified name in the model, written by ``linger.init``; used in messages.
        frozen: True while :func:`linger.freeze_statistics` holds the statistics.
        resting: True while a TQT threshold does not train because its operand arrives quantized (:meth:`rest`).

    Raises:
        ValueError: An argument is out of its set.

    Source: docs/numerics.md, "Where the exponent comes from" and "Training".
    """

    running_data: Tensor
    is_init: Tensor
    is_calibrate: Tensor
    scale: Tensor
    n_batches: Tensor
    learning_data: nn.Parameter
    is_init_mom_clamp_weight: Tensor
    _calibrated: int | None = None  # batches that had been seen when a calibration set the range last
    strategy = "RANGE_MEAN"  # of models that were pickled before there was another
    _young = False  # TQT: the threshold has seen only zeros, or its first real maxima

    def __init__(
        self,
        bits: int,
        *,
        method: str = "MOM",
        role: str = "activation",
        rounding: QuantMode = QuantMode.floor_add,
        calibrate: str = "top_10",
        strategy: str = "RANGE_MEAN",
    ) -> None:
        super().__init__()
        if not 2 <= bits <= 32:
            raise ValueError(f"Quantizer: bits must be in [2, 32], got {bits}")
        if method not in METHODS:
            raise ValueError(f"Quantizer: method must be one of {', '.join(METHODS)}, got {method!r}")
        if role not in ROLES:
            raise ValueError(f"Quantizer: role must be one of {', '.join(ROLES)}, got {role!r}")
        self.bits, self.method, self.role = bits, method, role
        if strategy not in STRATEGIES:
            raise ValueError(f"Quantizer: strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
        self.rounding, self.calibrate, self.strategy = QuantMode(rounding), calibrate, strategy
        self.name, self.frozen, self.resting, self._shown = "", False, False, False
        self._ready = self._clamped = False  # True is remembered; False is read from the buffer again
        self._flag = "is_init" if method == "MOM" else "is_calibrate"
        self._limit = "running_data" if method == "MOM" else "_running"
        if method == "MOM":
            self.register_buffer("running_data", torch.zeros(()))
        else:
            self.learning_data = nn.Parameter(torch.tensor([FIRST_THRESHOLD]))
            self.register_buffer("_running", torch.zeros(()), persistent=False)  # kernels take one; TQT ignores it
        self.register_buffer(self._flag, torch.zeros((), dtype=torch.uint8))  # not bool: averages of models subtract
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("n_batches", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("_skipped", torch.zeros(1, dtype=torch.int64), persistent=False)
        if method == "MOM" and role == "weight":
            self.register_buffer("is_init_mom_clamp_weight", torch.zeros((), dtype=torch.uint8))

    # -- what layers use ------------------------------------------------------------------------------------------

    def output(self, *, clamp: float = 0.0, relu: bool = False) -> ops.Output:
        """What an operator needs to quantize its result with this quantizer.

        Args:
            clamp: Training clamp to ±clamp in real units, 0 for none.
            relu: The result goes through a fused ReLU: the largest value counts, not the largest absolute value.
        """
        if self._young:
            self._grow()
        state = cast("dict[str, Tensor]", self._buffers)  # a plain dict: nn.Module's attribute access is slow
        stats = ops.Stats(state[self._limit], state[self._flag], state["scale"], state["n_batches"], state["_skipped"])
        move = self.training and not self.frozen and not in_float() and not in_recomputation()
        return ops.Output(
            stats, self._parameters.get("learning_data"), self.bits, int(self.rounding), clamp, move, relu
        )

    def weight_output(self, weight: Tensor, *, observe: bool = True) -> ops.Output:
        """The same for a weight; with ``LEAST_ERROR`` its state moves here, before the operator runs.

        Trained thresholds take their first value from a calibration and go their own way.

        Args:
            weight: The weight that the operator will quantize.
            observe: False: the state stays, whatever the mode.
        """
        out = self.output() if observe else self.output()._replace(observe=False)
        if self.strategy != "LEAST_ERROR" or self.method == "TQT":
            return out
        if not out.observe:
            if torch.compiler.is_compiling() or self.ready:
                return out
            own = (torch.zeros_like(t) for t in out.stats)  # nothing seen: of this weight alone, and nothing stays
            out = out._replace(stats=ops.Stats(*own))
        ops.least_error_step(weight, out)
        return out._replace(observe=False)

    def forward(self, x: Tensor) -> ops.Coded:
        """Quantizes a float tensor. In training the statistics move first; in a calibration they only collect ``x``.

        Shape:
            x any -> value and codes as x, scale 0-dim.
        """
        if calibrating():
            self.observe_calibration(x)
        return ops.quantize(x, self.output())

    def rest(self) -> None:
        """Holds a threshold that no forward uses (the operand arrives quantized), so that DDP does not wait for its gradient."""
        if self.method == "TQT" and self.learning_data.requires_grad:
            self.learning_data.requires_grad_(False)
            self.resting = True

    def wake(self) -> None:
        """A float operand has come after all: the threshold trains again.

        Raises:
            UnsupportedError: Inside DDP, which would not synchronise it.
        """
        if in_ddp_forward():
            raise UnsupportedError(
                f"linger: '{self.name}' met its first float operand under DistributedDataParallel, which would not synchronise "
                "its threshold; run such inputs through linger.init(..., example_inputs=...) before wrapping the model"
            )
        self.learning_data.requires_grad_(True)
        self.resting = False

    def observe_calibration(self, x: Tensor, *, relu: bool = False) -> None:
        """Shows one batch to the running :func:`linger.calibration` of this thread; nothing where quantization is switched off.

        Args:
            x: Float tensor, as the quantizer would see it.
            relu: Count only positive values, for a layer with a fused ReLU.

        Raises:
            RuntimeError: No calibration is running.
            ValueError: The calibration method is unknown.
        """
        if unobserved():
            return
        if self.resting:
            self.wake()
        self._shown = True
        observe(self, x.relu() if relu else x)

    def pass_calibration(self) -> None:
        """Inside a calibration: the operand arrives quantized, so a threshold that no float operand has met rests."""
        if not self._shown and not unobserved():
            self.rest()

    def bound_calibration(self, highest: Callable[[], Tensor]) -> None:
        """Tells the running calibration which scale the operator allows at most.

        Args:
            highest: Called when every range of the calibration stands; gives a float32 ``[]``.
        """
        bound(self, highest)

    def finalise_calibration(self) -> None:
        """Makes what the running calibration has collected for this quantizer its statistics, before the end of it."""
        finalise(self)

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a batch or a calibration has been seen. Reads the device only until the answer is yes."""
        if not self._ready:
            self._ready = bool(self._buffers[self._flag])
        return self._ready

    @property
    def weight_clamped(self) -> bool:
        """Whether the one clamp of the weight is done, in this process or before its checkpoint was written."""
        done = self._buffers.get("is_init_mom_clamp_weight")
        return self._clamped or (bool(done) if done is not None else self.ready)

    @property
    def calibrated(self) -> bool:
        """Whether the range is that of a calibration in this process: no training step has moved it since."""
        return self._calibrated is not None and int(self.n_batches) == self._calibrated

    @property
    def n_skipped(self) -> int:
        """Batches left out of the statistics because they held NaN or infinity (since the model was built or loaded)."""
        return int(self.get_buffer("_skipped"))

    def skip(self) -> None:
        """Counts a batch that could not enter the statistics."""
        self.get_buffer("_skipped").add_(1)

    @torch.no_grad()
    def set_range(self, limit: Tensor, n_batches: int = 1) -> None:
        """Replaces the statistics: values up to ``limit`` are representable.

        Args:
            limit: Largest absolute value, one element, finite. Values below 1e-6 count as 1e-6.
            n_batches: How many batches it was measured on; added to the counter.
        """
        limit = limit.detach().to(self.scale.device, torch.float32).reshape(1).clamp_min(SMALLEST_RANGE)
        if self.method == "TQT":
            self.learning_data.copy_(torch.log2(limit))
            self._look()
        self._observe(limit)
        self.n_batches += n_batches - 1
        self._calibrated = int(self.n_batches)

    def _observe(self, limit: Tensor) -> None:
        """Lets the kernel derive the scale, so that the exponent rule exists once."""
        self.get_buffer(self._flag).fill_(False)  # the kernel takes the value itself, not an average with the old one
        ops.quantize(limit.reshape(1), self.output()._replace(observe=True))

    def _look(self) -> None:
        """Remembers whether a threshold that was just written is at its floor, or left it lately: it is no range yet."""
        if self.method == "TQT":
            self.get_buffer("_running").zero_()
            readable = not self.learning_data.is_meta
            low, high = FLOOR
            at_floor = readable and low <= float(self.learning_data.detach()) <= high
            self._young = at_floor or (readable and int(self.get_buffer(self._flag)) > 1)

    @torch.no_grad()
    def _grow(self) -> None:
        """Writes the maximum that the last training step has found into a threshold at its floor, or one that left it lately.

        Between two steps: DDP has given every process the same buffer by then.
        """
        limit, t, flag = self.get_buffer("_running"), self.learning_data, self.get_buffer(self._flag)
        if torch.compiler.is_compiling():  # nothing is read on the host there
            real = (limit > SMALLEST_RANGE) & (((t >= FLOOR[0]) & (t <= FLOOR[1])) | (flag > 1))
            t.copy_(torch.where(real, torch.maximum(torch.log2(limit), t), t))
        elif float(limit) > SMALLEST_RANGE:
            t.copy_(torch.maximum(torch.log2(limit), t))
            if int(flag) <= 1:
                limit.zero_()
                self._young = False

    @torch.no_grad()
    def reset(self) -> None:
        """Forgets all statistics, as if the model had just been initialised."""
        for name, buffer in self._buffers.items():
            assert buffer is not None
            buffer.fill_(name == "scale")
        if self.method == "TQT":
            self.learning_data.fill_(FIRST_THRESHOLD)
        self._ready = self._clamped = self._young = False
        self._calibrated = None

    def state(self) -> State:
        """A copy of the statistics, for :meth:`restore`."""
        return State(
            self._limit_tensor().detach().clone(),
            self.get_buffer(self._flag).clone(),
            self.scale.clone(),
            self.n_batches.clone(),
        )

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Puts the statistics back."""
        mine = (self._limit_tensor(), self.get_buffer(self._flag), self.scale, self.n_batches)
        for current, saved in zip(mine, state, strict=True):
            current.copy_(saved)
        self._ready = False
        self._look()

    @torch.no_grad()
    def adopt(self, before: State, method: str) -> None:
        """Completes what a registered calibration function has set: the range gives the scale, or the other way round.

        Args:
            before: The state before the function ran.
            method: The function's registered name, for messages.

        Raises:
            ValueError: It set nothing, a range that is NaN or infinite, or a scale that is not a positive power of two.
        """
        limit, scale = self._limit_tensor(), float(self.scale)
        moved, scaled = not torch.equal(limit.detach(), before.limit), scale != float(before.scale)
        where = f"calibration method {method!r} on {self.name or 'a quantizer'}"
        if not (moved or scaled or bool(before.initialised)):
            raise ValueError(f"{where}: set {'running_data' if self.method == 'MOM' else 'learning_data'} or scale")
        if scaled and not (scale > 0 and math.frexp(scale)[0] == 0.5):
            raise ValueError(f"{where}: scale must be a positive power of two, got {scale}")
        if not moved and scaled:
            exp2 = self.bits - math.frexp(scale)[1]
            limit.fill_(exp2 if self.method == "TQT" else 2.0**exp2)
        smallest = math.log2(SMALLEST_RANGE) if self.method == "TQT" else SMALLEST_RANGE
        limit.clamp_min_(smallest)  # log2(0) of an all-zero tensor ends here
        self._look()
        if not bool(limit.isfinite()):
            raise ValueError(f"{where}: the range must be finite, got {float(limit)}")
        self._observe(
            torch.zeros_like(limit) if self.method == "TQT" else limit.detach().clone()
        )  # t says its own scale
        if scaled:
            self.scale.fill_(scale)

    @property
    def reach(self) -> float:
        """The largest absolute value of the range that the statistics stand for, in real units. Reads the device."""
        limit = float(self._limit_tensor().detach())
        return 2.0**limit if self.method == "TQT" else limit

    def _limit_tensor(self) -> Tensor:
        return self.learning_data if self.method == "TQT" else self.running_data

    def extra_repr(self) -> str:
        """Width, method and role."""
        return f"bits={self.bits}, method={self.method}, role={self.role}"
