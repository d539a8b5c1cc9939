"""Exceptions of the package. Every refusal is one of these, or a `TypeError` or `ValueError` for a wrong argument."""

from linger._C import ConfigError, config_error

__all__ = ["ConfigError", "ExportError", "ModelError", "UnsupportedError", "config_error"]


class UnsupportedError(NotImplementedError):
    """The request is meaningful, but no code or no chip exists for it; the message names what and why."""


class ExportError(RuntimeError):
    """A model cannot be written as ONNX; the message names module, operator and the ways out."""


class ModelError(ValueError):
    """An ONNX file is malformed or not executable; the message names the node and the reason."""
