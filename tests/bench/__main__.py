"""The one command: every part, one and two threads, then a run without VNNI and AVX-512 on both sides."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read when torch loads: the profiler's own lines are not results

import torch

from . import conv_bn, importing, machine, peaks, quantizing, recurrent, speech, training
from .rows import HEAD, Settings

PARTS = {
    "quantize": quantizing.rows,
    "train": training.rows,
    "speech": speech.rows,
    "convbn": conv_bn.rows,
    "rnn": recurrent.rows,
    "import": importing.rows,
    "peak": peaks.rows,
}

MASKED = {"train", "speech"}  # the parts that run once more


def main() -> None:
    """Prints the machine, then one table per number of threads."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all when none is named")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="fewer sizes, no peers, short budgets")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds per comparison")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds per comparison, about")
    parser.add_argument("--no-masked", action="store_true", help="leave out the run limited to AVX2")
    a = parser.parse_args()
    unknown = set(a.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    warnings.filterwarnings("ignore")
    machine.mask_if_asked()
    settings = Settings(6, 4.0, True) if a.quick else Settings(a.rounds, a.budget, False)
    print(machine.describe(), flush=True)
    for threads in a.threads:
        torch.set_num_threads(threads)
        print(f"\n## {threads} thread{'s' * (threads > 1)}\n{HEAD}", flush=True)
        for part in a.parts or PARTS:
            if part in ("import", "peak") and threads != a.threads[0]:  # of one thread
                continue
            for row in PARTS[part](settings):
                print(row.text(), flush=True)
    if not a.no_masked and not machine.masked() and MASKED & set(a.parts or PARTS):
        print("\n# Without VNNI and AVX-512, on both sides", flush=True)
        again = [
            *sorted(MASKED & set(a.parts or PARTS)),
            "--threads",
            *map(str, a.threads),
            "--rounds",
            str(a.rounds),
            "--budget",
            str(a.budget),
        ]
        again += ["--quick"] * a.quick
        subprocess.run([sys.executable, "-m", "tests.bench", *again], env=os.environ | machine.MASKED, check=True)


main()
