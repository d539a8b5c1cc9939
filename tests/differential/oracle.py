"""The operators in int64 numpy, from the numerics page alone: nothing here is shared with the kernels."""

import math

import numpy as np

Ints = np.ndarray


def rsh(v: Ints, s: int) -> Ints:
    """floor(v / 2**s + 1/2); Python integers where int64 could overflow."""
    if s == 0:
        return v
    if s < 40:
        return (v + (1 << (s - 1))) >> s
    return np.array([(int(e) + (1 << (s - 1))) >> s for e in v.ravel()], np.int64).reshape(v.shape)


def sat(v: Ints, bits: int) -> Ints:
    """Limits of a code."""
    return np.clip(v, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def narrow(total: Ints, shift: int, bits: int) -> Ints:
    """A sum at its output scale; a negative shift multiplies the 32-bit sum."""
    return sat(rsh(total, shift), bits) if shift >= 0 else sat(sat(total, 32) << -shift, bits)


def padded(x: Ints, pads: tuple[int, ...], value: int = 0) -> Ints:
    """(N, C, H, W) with top, left, bottom, right."""
    t, left, b, r = pads
    return np.pad(x.astype(np.int64), ((0, 0), (0, 0), (t, b), (left, r)), constant_values=value)


def windows(x: Ints, kernel, stride, dilation=(1, 1)):
    """Views of a padded input, one per kernel element, and the size of the result."""
    oh = (x.shape[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    ow = (x.shape[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            y, z = i * dilation[0], j * dilation[1]
            yield (
                i,
                j,
                x[:, :, y : y + (oh - 1) * stride[0] + 1 : stride[0], z : z + (ow - 1) * stride[1] + 1 : stride[1]],
            )


def conv2d(x, w, b, stride, pads, dilation, group) -> Ints:
    """Exact sums, saturated to 32 bits once."""
    outs, per = w.shape[0] // group, x.shape[1] // group
    parts = []
    for g in range(group):
        weight = w[g * outs : (g + 1) * outs].astype(np.int64)
        total = 0
        for i, j, view in windows(padded(x[:, g * per : (g + 1) * per], pads), w.shape[2:], stride, dilation):
            total = total + np.einsum("nchw,oc->nohw", view, weight[:, :, i, j])
        parts.append(total)
    out = np.concatenate(parts, 1)
    return sat(out if b is None else out + b.astype(np.int64)[:, None, None], 32)


def conv_transpose2d(x, w, b, stride, pads, extra) -> Ints:
    """Every input spreads its kernel; then the borders are cut."""
    n, _, h, width = x.shape
    kh, kw = w.shape[2:]
    out = np.zeros(
        (n, w.shape[1], (h - 1) * stride[0] + kh + extra[0], (width - 1) * stride[1] + kw + extra[1]), np.int64
    )
    for y in range(h):
        for z in range(width):
            patch = np.einsum("nc,coij->noij", x[:, :, y, z].astype(np.int64), w.astype(np.int64))
            out[:, :, y * stride[0] : y * stride[0] + kh, z * stride[1] : z * stride[1] + kw] += patch
    out = out[:, :, pads[0] : out.shape[2] - pads[2], pads[1] : out.shape[3] - pads[3]]
    return sat(out + b.astype(np.int64)[:, None, None], 32)


def reciprocal(d: int) -> tuple[int, int]:
    """The divider's R and e: floor(S * R / 2**(29 + e) + 1/2)."""
    e = (d - 1).bit_length()
    half = lambda num, den: (2 * num + den) // (2 * den)  # noqa: E731  floor(v + 1/2) of a fraction
    f0 = (32 * d) >> e
    r = half(32 << 29, f0)
    for _ in range(3):
        t = half(((2 << 29 << e) - d * r) * 2, 1 << e)  # (2 - f r) in units of 2**-30
        r = half(r * t, 1 << 30)
    return r, e


def divide(total: Ints, d: int) -> Ints:
    """A window's sum by its size."""
    if d & (d - 1) == 0:
        return rsh(total, d.bit_length() - 1)
    r, e = reciprocal(d)
    shift = 29 + e
    return np.array([(2 * int(v) * r + (1 << shift)) >> (shift + 1) for v in total.ravel()], np.int64).reshape(
        total.shape
    )


def avg_pool(x, kernel, stride, pads) -> Ints:
    """Padding counts as 0 and is counted."""
    total = sum(view for *_, view in windows(padded(x, pads), kernel, stride))
    return sat(divide(total, int(kernel[0] * kernel[1])), 8)


def max_pool(x, kernel, stride, pads) -> Ints:
    """Padding never wins."""
    views = [view for *_, view in windows(padded(x, pads, -(10**6)), kernel, stride)]
    return np.max(np.stack(views), 0)


def rescaled(x, left: int, bits: int = 8) -> Ints:
    """Codes at another scale."""
    return narrow(x.astype(np.int64), -left, bits)


def softmax_exp(d: Ints, fine: bool) -> Ints:
    """2**x of differences d <= 0 in Q25, as Q23; ``fine`` is venusA's rounding."""
    scaled = np.array([(int(v) * 774541002 + (1 << 30)) >> 31 for v in d.ravel()], object)
    out = []
    for v in scaled:
        e, f = (v >> 23) + 1, (v & 0x7FFFFF) - (1 << 23)
        poly = [57364, 446161, 2008107, 5813551, 8388575]
        y = poly[0]
        for k, p in enumerate(poly[1:], 1):
            if not fine:
                y = ((y * f + (1 << 22)) >> 23) + p
            elif k < 4:
                y = (y * f * 128 + (p << 30) + (1 << 29)) >> 30
            else:
                wide, s = y * f * 128 + (p << 30), 30 - e
                y = 0 if s > 63 else (wide + (1 << (s - 1))) >> s
        if not fine:
            y = min(y << e, 2**31 - 1) if e > 0 else (0 if -e >= 63 else y >> -e)
        out.append(y)
    return np.array(out, object).reshape(d.shape)


def softmax(x: Ints, q_x: int, q_o: int, bits: int, fine: bool) -> Ints:
    """Softmax over the last axis of codes."""
    wide = np.clip(x.astype(np.int64) * 2 ** (25 - q_x) if q_x <= 25 else x, -(2**31), 2**31 - 1)
    rows = []
    for row in wide.reshape(-1, x.shape[-1]):
        top = max(int(row.max()), -(2**31) + 1) if fine else int(row.max())
        e = softmax_exp(np.maximum(row - top, -(2**31)), fine)
        total = min(int(e.sum()), 2**31 - 1)
        a, c = 1 << 23, 0
        for _ in range(30):
            a, c = (2 * (a - total), 2 * (c + 1)) if a >= total else (2 * a, 2 * c)
        rows.append([(c * int(v) + (1 << 37)) >> 38 for v in e])
    return narrow(np.array(rows, np.int64).reshape(x.shape), 15 - q_o, bits)


def power(scale_exp2: int) -> float:
    """A scale."""
    return math.ldexp(1.0, scale_exp2)
