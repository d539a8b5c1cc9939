"""Watching a quantized training: what saturates, what is zero, which exponents move, and where it breaks."""

from .frameworks import lightning_callback, trainer_callback
from .monitor import Diverged, Event, Monitor, monitor, suggest_lr

__all__ = ["Diverged", "Event", "Monitor", "lightning_callback", "monitor", "suggest_lr", "trainer_callback"]
