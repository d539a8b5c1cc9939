"""The monitor as a callback of Lightning and of Hugging Face's Trainer; neither is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from .monitor import Monitor

__all__ = ["lightning_callback", "trainer_callback"]


def _base(names: tuple[str, ...], attribute: str, what: str) -> Any:
    for name in names:
        try:
            return getattr(import_module(name), attribute)
        except ImportError:
            continue
    raise ImportError(f"linger: {what} needs one of the packages {', '.join(n.partition('.')[0] for n in names)}")


def _scalar_writer(trainer: Any) -> Any:
    """The trainer's TensorBoard writer, where it has one."""
    for logger in getattr(trainer, "loggers", None) or []:
        writer = getattr(logger, "experiment", None)
        if hasattr(writer, "add_scalar") and hasattr(writer, "add_histogram"):
            return writer
    return None


def lightning_callback(every: int = 50, **options: Any) -> Any:
    """:func:`linger.monitor` as a Lightning callback: ``Trainer(callbacks=[linger.lightning_callback()])``.

    A TensorBoard logger of the trainer is written to. The callback's ``monitor`` has the events.

    Args:
        every: Steps between two looks.
        **options: Of :func:`linger.monitor`.

    Raises:
        ImportError: Neither ``lightning`` nor ``pytorch_lightning`` is installed.

    Source: ours.
    """
    base = _base(("lightning.pytorch.callbacks", "pytorch_lightning.callbacks"), "Callback", "lightning_callback")

    class LingerMonitor(base):  # type: ignore[misc, valid-type]  # known when it is asked for
        """Watches the training steps; a step is ``training_step``, not the module's own ``forward``."""

        monitor: Monitor | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.monitor = Monitor(pl_module, every, **{"writer": _scalar_writer(trainer)} | options)

        def on_train_batch_start(self, *_: Any, **__: Any) -> None:
            if self.monitor is not None:
                self.monitor.begin()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any, **__: Any) -> None:
            if self.monitor is None:
                return
            self.monitor.end()
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if isinstance(loss, Tensor):
                self.monitor.loss(loss)

        def on_train_end(self, *_: Any) -> None:
            if self.monitor is not None:
                self.monitor.__exit__()

        def on_exception(self, *_: Any) -> None:
            self.on_train_end()

    return LingerMonitor()


def trainer_callback(every: int = 50, **options: Any) -> Any:
    """:func:`linger.monitor` as a callback of ``transformers.Trainer``: ``Trainer(callbacks=[linger.trainer_callback()])``.

    The loss is the one that the trainer logs. The callback's ``monitor`` has the events.

    Args:
        every: Steps between two looks.
        **options: Of :func:`linger.monitor`.

    Raises:
        ImportError: ``transformers`` is not installed.

    Source: ours.
    """
    base = _base(("transformers",), "TrainerCallback", "trainer_callback")

    class LingerMonitor(base):  # type: ignore[misc, valid-type]
        """Watches the model's own forward, which the trainer calls."""

        monitor: Monitor | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            self.monitor = Monitor(model, every, **options).__enter__()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if self.monitor is not None and "loss" in (logs or {}):
                self.monitor.loss(logs["loss"])

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.monitor is not None:
                self.monitor.__exit__()

    return LingerMonitor()
