"""Which call of an operator is this? Call sites name the state of functional operators, run after run, process after process."""

from __future__ import annotations

import dis
import hashlib
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import torch

from linger.errors import UnsupportedError

# A step is one user frame between the owner's forward and the operator; a site is the chain of steps plus the visit number.
Position = tuple[CodeType, int]  # code object and offset of the instruction that it is executing
Step = tuple[str, int, str]  # qualified name of the function, rank of the instruction among its calls, fingerprint
StoredSite = tuple[str, tuple[Step, ...], int]  # operator, steps, visit

_TORCH = os.path.dirname(torch.__file__) + os.sep
_LINGER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_CHECKPOINT = os.path.join(_TORCH, "utils", "checkpoint.py")
_foreign: dict[CodeType, bool] = {}
_steps: dict[tuple[CodeType, int], Step] = {}
_fingerprints: dict[CodeType, tuple[str, dict[int, int]]] = {}

_CALLS = ("CALL", "BINARY", "INPLACE", "UNARY", "COMPARE")
_prepared: dict[CodeType, dict[int, int]] = {}


def _call(frame: FrameType) -> Position:
    """The call that a frame is executing. Python 3.11 runs calls of C functions in the PRECALL in front once they are warm."""
    code, offset = frame.f_code, frame.f_lasti
    if "PRECALL" not in dis.opmap:
        return code, offset
    known = _prepared.get(code)
    if known is None:
        known = {}
        before: int | None = None
        for instruction in dis.get_instructions(code):
            if before is not None:
                known[before] = instruction.offset
            before = instruction.offset if instruction.opname == "PRECALL" else None
        _prepared[code] = known
    return code, known.get(offset, offset)


def _is_foreign(code: CodeType) -> bool:
    known = _foreign.get(code)
    if known is None:
        name = os.path.abspath(code.co_filename)
        known = _foreign[code] = name.startswith((_TORCH, _LINGER))
    return known


def user_calls(start: FrameType | None, boundary: CodeType) -> list[Position]:
    """Calls in user code from the operator outwards, up to the owner's entry (the frame that runs ``boundary``)."""
    found = []
    frame = start
    while frame is not None and frame.f_code is not boundary:
        if not _is_foreign(frame.f_code):
            found.append(_call(frame))
        frame = frame.f_back
    return found if "torch._dynamo" not in sys.modules else _as_written(found)


def method_calls(start: FrameType | None, owner: object) -> tuple[list[Position], FrameType | None]:
    """As :func:`user_calls` inside ``active``, which has no entry frame.

    Up to the outermost call that ``owner`` is the first argument of, ``model.encode(x)``; that frame too (None where the
    operator stands outside any such call).
    """
    found: list[Position] = []
    entry, end = None, 0
    frame = start
    while frame is not None:
        code = frame.f_code
        if not _is_foreign(code):
            found.append(_call(frame))
            if code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is owner:
                entry, end = frame, len(found)
        frame = frame.f_back
    found = found[:end] if entry is not None else found
    return (found if "torch._dynamo" not in sys.modules else _as_written(found)), entry


def traced_calls(boundary: CodeType) -> list[Position]:
    """As :func:`user_calls`, of the code that ``torch.compile`` is tracing: it has no frames, dynamo knows where it is."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    found = []
    tracer: Any = InstructionTranslator.current_tx().output.current_tx
    while tracer is not None and tracer.f_code is not boundary:
        if not _is_foreign(tracer.f_code):
            found.append((tracer.f_code, tracer.current_instruction.offset or 0))
        tracer = tracer.parent
    if tracer is None:  # the graph broke inside the owner's forward: its entry runs as usual
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not boundary:
            if not _is_foreign(frame.f_code):
                found.append(_call(frame))
            frame = frame.f_back
    return _as_written(found)


def forget_trace() -> None:
    """The code that ``torch.compile`` is tracing need not take the same steps when the trace starts again."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    tracer: Any = InstructionTranslator.current_tx()
    tracer.speculation_log.clear()


def refuse_checkpointed_function(operator: str, start: FrameType | None, boundary: CodeType) -> None:
    """A checkpointed function runs again in backward without its owner; a checkpointed module is its own owner.

    Raises:
        UnsupportedError: ``torch.utils.checkpoint`` stands between the operator and the owner's forward.
    """
    frame = start
    while frame is not None and frame.f_code is not boundary:
        if frame.f_code.co_filename == _CHECKPOINT:
            file, line = where(start)
            raise UnsupportedError(
                f"linger: `{operator}` at {file}:{line} runs in a checkpointed function, whose recomputation in backward would "
                "not be quantized; move the code into a module and checkpoint that module with use_reentrant=False"
            )
        frame = frame.f_back


def _as_written(calls: list[Position]) -> list[Position]:
    """Around a graph break, code that dynamo made runs in the place of the user's; its positions are those of the user's.

    What follows a break is a function of its own, called at the end of what precedes it: one user frame, not two.
    """
    from torch._dynamo.resume_execution import ContinueExecutionCache
    from torch._dynamo.utils import orig_code_map

    resumed, rewritten = ContinueExecutionCache.generated_code_metadata, orig_code_map
    found: list[Position] = []
    continues: CodeType | None = None
    for code, offset in calls:
        user, continued = code, False
        while user in rewritten or user in resumed:
            continued |= user in resumed
            user = resumed[user].code if user in resumed else rewritten[user]
        if continues is not user:
            found.append((code, offset) if user is code else (user, _offset_in(user, code, offset)))
        continues = user if continued else None
    return found


def _offset_in(user: CodeType, made: CodeType, offset: int) -> int:
    """The call in the user's code that stands for one in code made of it."""
    spans = {at: span for span, at in _spans(made)}
    starts = sorted(spans)
    span = spans.get(starts[bisect_right(starts, offset) - 1]) if starts else None
    known = _offsets(user)
    if span not in known:
        raise UnsupportedError(
            f"linger: a graph break of torch.compile hides which call in {user.co_name} ({user.co_filename}:"
            f"{user.co_firstlineno}) this operator is; compile with fullgraph=True, or keep the break out of this function"
        )
    return known[span]


def where(start: FrameType | None, boundary: CodeType | None = None) -> tuple[str, int]:
    """File and line of the nearest user frame; ``("?", 0)`` where none lies inside the frame that runs ``boundary``."""
    frame = start
    while frame is not None and frame.f_code is not boundary and _is_foreign(frame.f_code):
        frame = frame.f_back
    inside = frame is not None and frame.f_code is not boundary
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None and inside else ("?", 0)


def _plain(const: Any) -> str:
    if isinstance(const, CodeType):
        return const.co_name
    return repr(sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)


def _span(instruction: Any) -> tuple[int, ...]:
    """First and last line and column of an instruction's source text."""
    span = getattr(instruction, "positions", None)
    return tuple(-1 if p is None else p for p in span) if span else (instruction.offset or 0,)


def _spans(code: CodeType) -> Iterator[tuple[tuple[int, ...], int]]:
    """Source text and offset of every call-like instruction."""
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith(_CALLS):
            yield _span(instruction), instruction.offset


def _offsets(code: CodeType) -> dict[tuple[int, ...], int]:
    return dict(_spans(code))


def _analyse(code: CodeType) -> tuple[str, dict[int, int]]:
    """Fingerprint that does not depend on positions, and offset -> rank of every call-like instruction."""
    known = _fingerprints.get(code)
    if known is None:
        calls = sorted((span, offset) for span, offset in _spans(code))
        ranks = {offset: rank for rank, (_, offset) in enumerate(calls)}
        text = [code.co_name, *code.co_varnames, "|", *code.co_names, "|", str(len(calls))]
        text += [_plain(c) for c in code.co_consts[1:]]  # the first constant is the docstring or None
        known = _fingerprints[code] = (hashlib.sha256("\0".join(text).encode()).hexdigest()[:12], ranks)
    return known


def step(call: Position) -> Step:
    """Stable name of a call in user code."""
    known = _steps.get(call)
    if known is None:
        code, offset = call
        fingerprint, ranks = _analyse(code)
        name = getattr(code, "co_qualname", code.co_name)
        starts = sorted(ranks)  # while a call runs, its frame may stand behind the instruction's start
        at = bisect_right(starts, offset) - 1
        known = _steps[call] = (name, ranks[starts[at]] if at >= 0 else offset, fingerprint)
    return known
