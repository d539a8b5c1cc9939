"""The commands: each takes the parsed words and returns an answer. What they say is said by the library's own reports."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["COMMANDS", "Answer", "Command"]

Array = np.ndarray[Any, Any]


class Answer(NamedTuple):
    """Args: text: for people; data: for ``--json``; ok: whether the exit code is 0."""

    text: str
    data: Any
    ok: bool = True


class Command(NamedTuple):
    """Args: name, help: as shown; arguments: adds those of the command; run: answers."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Answer]


# ---- arguments


def _file(parser: ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, metavar=f"{name.upper()}.onnx", help="a file that linger.onnx.export wrote")


def _inputs(parser: ArgumentParser, flag: str, count: str = "+") -> None:
    about = "arrays of the graph's inputs, in order: .npy files, name=x.npy, or one .npz with their names"
    if flag.startswith("-"):
        parser.add_argument(flag, nargs="+", action="extend", metavar="X.npy", help=f"the same: {about}")
    else:
        parser.add_argument(flag, nargs=count, metavar="X.npy", help=about)


def _read_inputs(given: list[str]) -> Any:
    """A list of arrays, or a dictionary where names are given."""
    arrays: list[Array] = []
    named: dict[str, Array] = {}
    for text in given:
        name, equals, path = text.partition("=")
        path = path if equals else name
        content = np.load(path, allow_pickle=False)
        if isinstance(content, Mapping):
            if equals:
                raise ValueError(f"{text}: a .npz has names of its own; write {path} alone")
            named.update(content)
        elif equals:
            named[name] = content
        else:
            arrays.append(content)
    if named and arrays:
        raise ValueError("give every input a name (name=x.npy), or none")
    return named or arrays


# ---- check


def _check_arguments(parser: ArgumentParser) -> None:
    _file(parser, "model")
    parser.add_argument("--platform", help="refuse a file for another chip: arcs, mars, venusA or venus")
    parser.add_argument("--engine", help="release of the engine: 562ddc7 or later; the file's where it is left out")


def _check(options: Namespace) -> Answer:
    from linger.onnx import check

    report = check(options.model, options.platform, engine=options.engine)
    return Answer(str(report), report.to_dict(), report.ok)


# ---- run


def _run_arguments(parser: ArgumentParser) -> None:
    _file(parser, "model")
    _inputs(parser, "inputs", "*")
    _inputs(parser, "--input")
    parser.add_argument("--output", metavar="Y.npz", help="write the results there, by name")
    parser.add_argument("--integers", action="store_true", help="the integers in front of each final Dequant")


def _run(options: Namespace) -> Answer:
    from linger.files import replaced
    from linger.onnx import OnnxRunner

    given = [*options.inputs, *(options.input or ())]
    if not given:
        raise ValueError("no input: write the .npy files behind the model, or behind --input")
    results = OnnxRunner(options.model).run(_read_inputs(given), integers=options.integers)
    if options.output:
        with replaced(options.output) as file:
            np.savez(file, **results)  # type: ignore[arg-type]  # names are free
    text = "\n".join(
        f"{name} {list(a.shape)} {a.dtype}\n{np.array2string(a, threshold=64)}" for name, a in results.items()
    )
    if options.output:
        text += f"\nwritten to {options.output}"
    return Answer(
        text, {name: {"shape": a.shape, "dtype": str(a.dtype), "values": a.tolist()} for name, a in results.items()}
    )


# ---- compare


def _compare_arguments(parser: ArgumentParser) -> None:
    _file(parser, "first", "second")
    _inputs(parser, "inputs")


def _compare(options: Namespace) -> Answer:
    from linger.onnx import OnnxRunner

    inputs = _read_inputs(options.inputs)
    first, second = (OnnxRunner(path).run(inputs, integers=True) for path in (options.first, options.second))
    if len(first) != len(second):
        raise ValueError(f"{options.first} has {len(first)} output(s), {options.second} has {len(second)}")
    rows, lines = [], []
    for (name, a), (other, b) in zip(first.items(), second.items(), strict=True):
        shown = name if name == other else f"{name} / {other}"
        row: dict[str, Any] = {"output": shown, "elements": int(a.size)}
        if a.shape != b.shape:
            row |= {"differ": int(max(a.size, b.size)), "largest": None}
            lines.append(f"{shown}: shapes {list(a.shape)} and {list(b.shape)}")
        else:
            same = (a == b) | ((a != a) & (b != b))
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64))[~same]
            row |= {"differ": int(apart.size), "largest": float(apart.max()) if apart.size else 0.0}
            lines.append(f"{shown}: {row['differ']} of {row['elements']} differ, by at most {row['largest']:g}")
        rows.append(row)
    return Answer("\n".join(lines), rows, all(row["differ"] == 0 for row in rows))


# ---- report, pack


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="an exported .onnx file, or a checkpoint of linger.save")


def _report(options: Namespace) -> Answer:
    if not str(options.file).endswith(".onnx"):
        return _checkpoint(options.file)
    from linger.onnx.pack_report import pack_report

    report = pack_report(options.file)
    return Answer(str(report), report.to_dict())


def _checkpoint(path: str) -> Answer:
    from linger.convert.state import open_checkpoint

    state = {k: v for k, v in open_checkpoint(path, torch.device("cpu")).items() if isinstance(v, torch.Tensor)}
    size = sum(t.numel() * t.element_size() for t in state.values())
    rows = [{"key": k, "shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")} for k, t in state.items()]
    quantizers = sorted({k.rpartition(".")[0] for k in state if "quantizer" in k})
    head = f"{path}: {len(state)} tensors, {size} bytes, {len(quantizers)} quantizers"
    lines = [f"  {row['key']}  {row['shape']} {row['dtype']}" for row in rows]
    return Answer("\n".join([head, *lines]), {"bytes": size, "quantizers": quantizers, "tensors": rows})


def _pack(options: Namespace) -> Answer:
    from linger.onnx.pack_report import pack_report

    report = pack_report(options.model)
    options_line = " ".join(report.options)
    lines = [
        f"# options of the packer for {os.path.basename(options.model)}, {report.platform}, engine {report.engine}",
        options_line or "# none: its defaults do",
        *(f"# {note}" for note in report.notes),
        *(f"# error: {line}" for line in report.errors),
    ]
    data = {"platform": report.platform, "engine": report.engine, "options": report.options, "errors": report.errors}
    return Answer("\n".join(lines), data, not report.errors)


# ---- config


def _config_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="CONFIG.yaml", help="a file to check; without one the template is shown"
    )
    parser.add_argument("--write", metavar="CONFIG.yaml", help="write the template there")


def _config(options: Namespace) -> Answer:
    from linger import settings

    chosen = settings.load(options.file) if options.file else settings.defaults()
    text = settings.dumps(chosen)
    if options.write:
        if os.path.exists(options.write):
            raise ValueError(f"{options.write} exists and is left as it is")
        settings.save(chosen, options.write)
        text = f"written to {options.write}"
    elif options.file:
        keys = ", ".join(sorted(chosen.explicit)) or "no key"
        text = f"{options.file} is right; it sets {keys}, and {len(chosen.sections)} section(s). In force:\n\n{text}"
    return Answer(text, {"file": options.file, "written": options.write, "yaml": settings.dumps(chosen)})


# ---- bench


def _bench_arguments(parser: ArgumentParser) -> None:
    _file(parser, "model")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure (2)")
    parser.add_argument("--threads", type=int, help="of torch; those it takes by itself where this is left out")


def _bench(options: Namespace) -> Answer:
    from linger import _C
    from linger.onnx import OnnxRunner
    from linger.onnx.loader import load

    if options.seconds <= 0:
        raise ValueError(f"--seconds must be above 0, got {options.seconds}")
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    runner = OnnxRunner(options.model)
    inputs = {p.name: torch.zeros([d or 1 for d in p.shape or ()], dtype=p.dtype) for p in load(options.model).inputs}
    for name, t in inputs.items():
        if not t.dtype.is_floating_point:
            inputs[name] = torch.ones_like(t)  # a length must be at least 1
        else:
            t.copy_(torch.randn(t.shape, generator=torch.Generator().manual_seed(0)))
    times: list[float] = []
    runner.run(inputs)
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        runner.run(inputs)
        times.append(time.perf_counter() - start)
    flags = _C.cpu_flags()
    kernels = [name for name, flag in _C.CPU_FLAGS.items() if flags & flag]
    data = {
        "runs": len(times),
        "best_ms": min(times) * 1e3,
        "median_ms": float(np.median(times)) * 1e3,
        "threads": torch.get_num_threads(),
        "kernels": kernels,
    }
    text = (
        f"{options.model} on {runner.platform}'s integers: {data['median_ms']:.3f} ms a run (best {data['best_ms']:.3f}) in "
        f"{len(times)} runs, {data['threads']} thread(s), kernels: {', '.join(kernels) or 'plain C'}"
    )
    return Answer(text, data)


# ---- convert, prove


def _convert_arguments(parser: ArgumentParser) -> None:
    _file(parser, "model")
    parser.add_argument("result", metavar="RESULT.onnx", help="the file to write")
    about = "standard operators with the chip's integers, QuantizeLinear / DequantizeLinear, or the names of linger 3.x"
    parser.add_argument("--to", choices=("standard", "qdq", "linger3"), default="standard", help=about)


def _convert(options: Namespace) -> Answer:
    from linger.files import replaced
    from linger.onnx.standard import TARGETS

    made = TARGETS[options.to](options.model)
    with replaced(options.result) as file:
        file.write(made.SerializeToString(deterministic=True))
    text = f"written to {options.result}: {options.to}, {len(made.graph.node)} nodes"
    return Answer(text, {"file": options.result, "form": options.to, "nodes": len(made.graph.node)})


def _prove_arguments(parser: ArgumentParser) -> None:
    _file(parser, "model")
    _inputs(parser, "inputs")
    parser.add_argument("--keep", metavar="STANDARD.onnx", help="keep the file in standard operators")


def _prove(options: Namespace) -> Answer:
    from linger.onnx import prove

    proof = prove(options.model, _read_inputs(options.inputs), options.keep)
    return Answer(str(proof), proof.to_dict(), proof.ok)


# ---- migrate


def _migrate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a script (.py) or a checkpoint of an older generation")


def _migrate(options: Namespace) -> Answer:
    from linger.compat.migrate import migrate

    found = migrate(options.file)
    return Answer(str(found), found.to_dict())


COMMANDS = (
    Command("check", "what the chip or its engine cannot do with a file", _check_arguments, _check),
    Command("run", "run a file on the host, integer for integer", _run_arguments, _run),
    Command("compare", "how many integers of two files differ on the same inputs", _compare_arguments, _compare),
    Command("report", "memory, work and parameters of a file; the tensors of a checkpoint", _report_arguments, _report),
    Command("pack", "the options of the packer for a file", lambda parser: _file(parser, "model"), _pack),
    Command("config", "show the template of the configuration, or check a file", _config_arguments, _config),
    Command("bench", "how long the runner takes for a file here", _bench_arguments, _bench),
    Command(
        "convert", "a file in standard ONNX operators, as QDQ, or with the names of 3.x", _convert_arguments, _convert
    ),
    Command("prove", "whether onnxruntime gives a file's integers, without our code", _prove_arguments, _prove),
    Command("migrate", "what a script or checkpoint of an older generation becomes", _migrate_arguments, _migrate),
)
"""In the order in which they are shown."""
