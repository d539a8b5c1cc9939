"""What a table of figures must name: processor, instruction sets, torch, commit."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess

import torch

import linger

AVX2 = 1
MASKED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def masked() -> bool:
    """Whether this process runs without VNNI and AVX-512."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2"


def mask_if_asked() -> None:
    """Limits our kernels to AVX2 where torch's environment says the same, so that both sides lose VNNI and AVX-512."""
    if masked():
        linger._C.set_cpu_mask(AVX2)


def describe() -> str:
    """Two lines: machine and instruction sets; torch, linger and commit."""
    cpu = pathlib.Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    isa = torch.backends.cpu.get_cpu_capability()
    root = pathlib.Path(__file__).parents[2]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    commit = done.stdout.strip() or "unknown"
    return (
        f"machine: {name}, {os.cpu_count()} cores; torch {isa}, our CPU flags {linger._C.cpu_flags():#x}\n"
        f"torch {torch.__version__}, linger {linger.__version__}, commit {commit}"
    )
