"""Layer normalisation as the chips' engine does it, in Python integers: independent of the C code."""

import numpy as np


def wrap32(v: int) -> int:
    """The low 32 bits, signed."""
    return (v + 2**31) % 2**32 - 2**31


def sat(v: int, bits: int) -> int:
    """Clamp to a code of this width."""
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, v))


def rhu(v: int, s: int) -> int:
    """floor(v / 2**s + 1/2)."""
    return v if s == 0 else (v + (1 << (s - 1))) >> s


def layer_norm_row(
    x: list[int], gamma: list[int], beta: list[int], x_exp2: int, shift: int, norm_bits: int, bits: int = 8
) -> list[int]:
    """One row of codes."""
    n, total, squares = len(x), sum(x), sum(v * v for v in x)
    eps = np.float32(1e-5) * np.float32(2.0 ** (2 * x_exp2))
    for factor in (n, n):
        eps = np.float32(eps * np.float32(factor))
    d = wrap32(n * squares) - wrap32(total * total) + int(np.floor(np.float32(eps + np.float32(0.5))))
    t, g = 32767, 0
    if d > 0:
        g = (d.bit_length() + 1) // 2
        i = d * 1024 >> 2 * g
        t = min(32767, int(np.floor(2.0**15 / np.sqrt(1 + (i - 256) / 256))))
    out = []
    for v, w, b in zip(x, gamma, beta, strict=True):
        num = sat(sat(n * v, 32) - total, 32)
        norm = sat(rhu(num * t, g + 4), norm_bits)
        out.append(sat(rhu(sat(norm * w, 32) + b, shift), bits))
    return out


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *rest: int) -> np.ndarray:
    """Rows of the last axis."""
    rows = x.reshape(-1, x.shape[-1]).tolist()
    return np.array([layer_norm_row(r, gamma.tolist(), beta.tolist(), *rest) for r in rows]).reshape(x.shape)
