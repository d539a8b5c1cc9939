"""Mutated ONNX files through the runner, mutated checkpoints through `load`: a refusal or a result, never anything else.

    python tests/fuzz/files.py [--seconds 60] [--seed 0]

Every input is tried in a child process, which writes it down first: one that crashes it, hangs it, or raises what is not a
refusal stays in build/fuzz/found_*. Runs from the root of the source tree, with the built extension.
"""

import argparse
import contextlib
import io
import logging
import multiprocessing
import os
import queue
import random
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import linger  # noqa: E402
from linger.onnx import ModelError, OnnxRunner  # noqa: E402

CORPUS, OUT = ROOT / "tests" / "data" / "fuzz", ROOT / "build" / "fuzz"
LIMIT = 20  # seconds for one input
REFUSALS = (ValueError, TypeError, RuntimeError, NotImplementedError)  # of load; each is one sentence


class Net(nn.Module):
    """A convolution, an operator of user code, a recurrent layer, a linear one."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lstm, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = (x + x).mean(3).transpose(1, 2)
        return torch.softmax(self.head(self.lstm(x)[0]), -1)


def made() -> dict[str, list[bytes]]:
    """A small model as file and as checkpoint, for two chips."""
    files: dict[str, list[bytes]] = {"onnx": [], "checkpoint": []}
    for chip in ("venusA", "venus"):
        torch.manual_seed(0)
        linger.settings.use(linger.settings.loads(f"platform: {chip}\n"))
        x = torch.randn(1, 1, 4, 4)
        model = linger.init(Net(), example_inputs=x)
        model(x)
        for kind, write in (("onnx", linger.onnx.export), ("checkpoint", None)):
            file = io.BytesIO()
            if write is None:
                linger.save(model, file)
            else:
                write(model.eval(), x, file)
            files[kind].append(file.getvalue())
    return files


def seeds() -> dict[str, list[bytes]]:
    """What is mutated: the models above, and what was found before."""
    files = made()
    for kind, known in files.items():
        known += [path.read_bytes() for path in sorted((CORPUS / kind).glob("*")) if path.is_file()]
    return files


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, dropped, repeated or replaced by numbers at their limits."""
    work = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(work) + 1) if work else 0
        length = min(chance.choice((1, 1, 2, 4, 8, 32)), len(work) - at)
        how = chance.randrange(6)
        if how == 0 and length:
            work[at : at + length] = chance.randbytes(length)
        elif how == 1 and length:
            work[at] ^= 1 << chance.randrange(8)
        elif how == 2:
            work[at:at] = work[at : at + length] * chance.choice((1, 2, 50))
        elif how == 3:
            del work[at : at + length]
        elif how == 4:
            limit = chance.choice((b"\xff", b"\x00", b"\x7f", b"\x80", b"\xff\xff\xff\xff\x0f", b"\x00\x00\x80\x7f"))
            work[at : at + len(limit)] = limit
        else:
            del work[chance.randrange(len(work) + 1) :]
    return bytes(work)


def run_file(data: bytes) -> str:
    """Load a file and run it on zeros."""
    try:
        runner = OnnxRunner(data)
        shapes = {v.name: v for v in runner._graph.inputs}
        arrays = {n: torch.zeros([d or 1 for d in v.shape or ()], dtype=v.dtype) for n, v in shapes.items()}
        if sum(a.numel() for a in arrays.values()) < 1 << 20:
            runner.run(arrays)
    except (ModelError, ValueError, TypeError):  # the last two are about inputs
        return "refused"
    return "ran"


def run_checkpoint(data: bytes) -> str:
    """Load a checkpoint into a float model."""
    try:
        linger.load(Net(), io.BytesIO(data))
    except REFUSALS:
        return "refused"
    return "ran"


RUN = {"onnx": run_file, "checkpoint": run_checkpoint}


def child(kind: str, seed: int, current: Path, counts: "multiprocessing.Queue[str]") -> None:
    """Try mutated files until it is ended."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chance, files = random.Random(seed), seeds()[kind]
    while True:
        data = mutated(chance.choice(files), chance)
        current.write_bytes(data)
        with contextlib.redirect_stderr(io.StringIO()):
            said = RUN[kind](data)
        counts.put(said)


def fuzz(kind: str, seconds: float, seed: int) -> bool:
    """One kind of file for some seconds; says how many, and whether all was well."""
    OUT.mkdir(parents=True, exist_ok=True)
    end, done, well = time.monotonic() + seconds, {"ran": 0, "refused": 0}, True
    while time.monotonic() < end:
        counts: multiprocessing.Queue[str] = multiprocessing.get_context("spawn").Queue()
        current = OUT / f"current_{kind}_{seed}"
        process = multiprocessing.get_context("spawn").Process(target=child, args=(kind, seed, current, counts))
        process.start()
        heard = time.monotonic() + 60  # it has to import torch first
        while time.monotonic() < end and time.monotonic() < heard + LIMIT and process.is_alive():
            with contextlib.suppress(queue.Empty):
                done[counts.get(timeout=0.5)] += 1
                heard = time.monotonic()
        why = "" if time.monotonic() >= end else "hang" if process.is_alive() else f"exit {process.exitcode}"
        process.kill()
        process.join()
        if why:
            found = OUT / f"found_{kind}_{seed}"
            os.replace(current, found)
            print(f"{kind}: {why}: {found.relative_to(ROOT)}", flush=True)
            well = False
        seed += 1
    print(f"{kind}: {sum(done.values())} mutated ones, {done['ran']} of them ran: {'no fault' if well else 'FAULTS'}")
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each kind of file")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations (default: the time)")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    well = [fuzz(kind, options.seconds, seed) for kind in RUN]
    return 0 if all(well) else 1


if __name__ == "__main__":
    raise SystemExit(main())
