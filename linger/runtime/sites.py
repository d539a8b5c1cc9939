"""Which call of an operator is this? Call sites name the state of functional operators, run after run, process after process."""

from __future__ import annotations

import dis
import hashlib
import os
from types import CodeType, FrameType
from typing import Any

import torch

# A step is one user frame between the owner's forward and the operator; a site is the chain of steps plus the visit number.
Step = tuple[str, int, str]  # qualified name of the function, rank of the instruction among its calls, fingerprint
StoredSite = tuple[str, tuple[Step, ...], int]  # operator, steps, visit

_TORCH = os.path.dirname(torch.__file__) + os.sep
_LINGER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_foreign: dict[CodeType, bool] = {}
_steps: dict[tuple[CodeType, int], Step] = {}
_fingerprints: dict[CodeType, tuple[str, dict[int, int]]] = {}

_CALLS = ("CALL", "BINARY", "INPLACE", "UNARY", "COMPARE")


def _is_foreign(code: CodeType) -> bool:
    known = _foreign.get(code)
    if known is None:
        name = os.path.abspath(code.co_filename)
        known = _foreign[code] = name.startswith((_TORCH, _LINGER))
    return known


def user_frames(start: FrameType | None, boundary: CodeType) -> list[FrameType]:
    """User frames from the operator outwards, up to the owner's entry (the frame that runs ``boundary``)."""
    found = []
    frame = start
    while frame is not None and frame.f_code is not boundary:
        if not _is_foreign(frame.f_code):
            found.append(frame)
        frame = frame.f_back
    return found


def where(start: FrameType | None) -> tuple[str, int]:
    """File and line of the nearest user frame."""
    frame = start
    while frame is not None and _is_foreign(frame.f_code):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)


def _plain(const: Any) -> str:
    if isinstance(const, CodeType):
        return const.co_name
    return repr(sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)


def _analyse(code: CodeType) -> tuple[str, dict[int, int]]:
    """Fingerprint that does not depend on positions, and offset -> rank of every call-like instruction."""
    known = _fingerprints.get(code)
    if known is None:
        calls = []
        for instruction in dis.get_instructions(code):
            if instruction.opname.startswith(_CALLS):
                span = getattr(instruction, "positions", None)
                key = tuple(-1 if p is None else p for p in span) if span else (instruction.offset,)
                calls.append((key, instruction.offset))
        ranks = {offset: rank for rank, (_, offset) in enumerate(sorted(calls))}
        text = [code.co_name, *code.co_varnames, "|", *code.co_names, "|", str(len(calls))]
        text += [_plain(c) for c in code.co_consts[1:]]  # the first constant is the docstring or None
        known = _fingerprints[code] = (hashlib.sha256("\0".join(text).encode()).hexdigest()[:12], ranks)
    return known


def step(frame: FrameType) -> Step:
    """Stable name of the instruction that a user frame is executing."""
    code, offset = frame.f_code, frame.f_lasti
    known = _steps.get((code, offset))
    if known is None:
        fingerprint, ranks = _analyse(code)
        name = getattr(code, "co_qualname", code.co_name)
        known = _steps[code, offset] = (name, ranks.get(offset, offset), fingerprint)
    return known
