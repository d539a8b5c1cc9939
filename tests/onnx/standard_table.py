"""``python -m tests.onnx.standard_table > docs/standard-nets.md``: the zoo in onnxruntime, integers that differ, and times."""

import io
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import linger
from linger.onnx import OnnxRunner, to_standard
from tests.onnx.standard_runs import session
from tests.zoo import CHIPS, ZOO
from tests.zoo.stages import chip, fresh

HEAD = """# The zoo in onnxruntime

Written by `python -m tests.onnx.standard_table > docs/standard-nets.md`: every net of [the zoo](zoo.md), exported for
every chip, translated by `linger.onnx.to_standard` ([how](onnx.md)) and run in onnxruntime {version} beside `OnnxRunner`.

* *differ*: integers of all outputs, for three inputs, that are not the same.
* *runner*, *onnxruntime*: milliseconds of one run, the best of several in turn, one thread, {processor}.
* *refused*: the chip does not take the net, see [the zoo](zoo.md). **float**: operators in float stay in the file; another
  library rounds them, so codes behind them may move.

| net | chip | elements | differ | runner | onnxruntime |
|---|---|---|---|---|---|"""


def best(*functions, rounds=5, seconds=0.02):
    """The least time of each function in ms, measured in turn."""
    least = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, f in enumerate(functions):
            start, count = time.perf_counter(), 0
            while count == 0 or time.perf_counter() - start < seconds:
                f()
                count += 1
            least[i] = min(least[i], (time.perf_counter() - start) / count * 1e3)
    return least


def exported(net):
    """Bytes of the file of a calibrated net."""
    model = linger.init(fresh(net), example_inputs=net.inputs(2))
    with linger.calibration(model):
        for seed in range(2):
            model(*net.inputs(4, 100 + seed))
    file = io.BytesIO()
    linger.onnx.export(model.eval(), net.inputs(), file)
    return file.getvalue()


def cells(net, platform):
    """What the table says about a net on a chip."""
    try:
        with chip(platform):
            data = exported(net)
    except linger.onnx.ExportError:
        return ["-", "refused", "", ""]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        runtime = session(to_standard(data, outputs="codes"))
    runner = OnnxRunner(data)
    elements = differing = 0
    for seed in range(3):
        given = dict(zip(runner.inputs, (x.numpy() for x in net.inputs(1, seed)), strict=True))
        want = runner.run(given, integers=True)
        for name, got in zip(want, runtime.run(list(want), given), strict=True):
            elements += got.size
            differing += int(np.sum(got != want[name]))
    times = best(lambda: runner.run(given, integers=True), lambda: runtime.run(None, given))
    islands = any("compute in float" in str(w.message) for w in said)
    return [str(elements), f"{differing}{', **float**' * islands}", *(f"{t:.3f}" for t in times)]


def processor():
    """Its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "this processor")


def main():
    """Print the page."""
    import onnxruntime

    torch.set_num_threads(1)
    print(HEAD.format(version=onnxruntime.__version__, processor=processor()))
    for name, net in ZOO.items():
        for platform in CHIPS:
            if platform != "mars":  # the files of arcs
                print(f"| {name} | {platform} | {' | '.join(cells(net, platform))} |", flush=True)


if __name__ == "__main__":
    main()
