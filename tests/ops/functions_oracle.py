"""The chips' functions in a few lines of int64 numpy, from the vendor's tables; independent of the C code.

Rows of a table: segment ends, slopes, then what the formulas below name.
"""

import numpy as np

# fmt: off
SIGMOID27 = np.array(
    [
        [63656107, 111395083, 153816608, 194953701, 236865036, 281253298, 329433241, 384154475, 447714743,
         515399149, 589016819, 679940425, 759830874, 862986200, 965402453, 2147483648],
        [529475578, 482862538, 424212188, 361565531, 298613704, 238039992, 181912633, 132002182, 89144402,
         56020914, 34019888, 18928477, 9459126, 5291645, 2204341, 177654],
        [1073741824, 1095849221, 1144526551, 1216321063, 1307759740, 1414659140, 1532274042, 1654777693,
         1777444109, 1887935281, 1972419725, 2038648643, 2086619912, 2110212774, 2130063364, 2144640936],
        [1073741824, 1051634427, 1002957097, 931162585, 839723908, 732824508, 615209606, 492705955, 370039539,
         259548367, 175063923, 108835005, 60863736, 37270874, 17420284, 2842712],
        [134217728, 136981152, 143065818, 152040132, 163469967, 176832392, 191534255, 206847211, 222180513,
         235991910, 246552465, 254831080, 260827489, 263776596, 266257920, 268080117],
        [134217728, 131454303, 125369637, 116395323, 104965488, 91603063, 76901200, 61588244, 46254942,
         32443545, 21882990, 13604375, 7607967, 4658859, 2177535, 355339],
    ],
    np.int64,
)
TANH27 = np.array(
    [
        [33584191, 58182438, 80361293, 102120620, 124483371, 148392654, 174972063, 206183541, 244722657,
         281591256, 312045360, 358241226, 403095772, 471425623, 530372454, 2147483648],
        [2114623134, 1910645334, 1662969581, 1396521636, 1131979061, 881027392, 652221876, 451080022, 281798391,
         159724746, 98692663, 60001039, 27632752, 13732196, 2832019, 172634],
        [0, 51039676, 158405367, 317937954, 519217264, 751968259, 1004938252, 1267155516, 1527203771,
         1749783808, 1877830237, 1967785133, 2054179492, 2095926998, 2134212723, 2144721503],
        [0, 6379959, 19800670, 39742244, 64902158, 93996032, 125617281, 158394439, 190900471, 218722976,
         234728779, 245973141, 256772436, 261990874, 266776590, 268090187],
    ],
    np.int64,
)
GELU = np.array(
    [
        [14115017, 28375324, 42953268, 58054959, 73951497, 91038024, 109967415, 132036451, 160959227, 226844274,
         267242587, 306191336, 350131144, 407973369, 516356188, 2147483648],
        [72728288, 83897176, 94867369, 105507160, 115674329, 125208681, 133918928, 141554901, 147729276,
         151456513, 147845039, 143733750, 139917095, 136824421, 134818073, 134217887],
        [61489440, 50320552, 39350359, 28710568, 18543399, 9009047, 298800, -7337173, -13511548, -17238785,
         -13627311, -9516022, -5699367, -2606693, -600345, -159],
        [-10758, -157495, -447240, -872623, -1421992, -2078164, -2815981, -3596982, -4354386, -4913744,
         -4157062, -3134007, -2046605, -1040047, -281784, -3183],
    ],
    np.int64,
)
SWISH = np.array(
    [
        [24654376, 49696796, 75597255, 102943334, 132562612, 165787474, 205189411, 257698662, 386828914,
         411601113, 503293022, 600623812, 719278864, 886211418, 1200463913, 2147483648],
        [73253038, 85425077, 97268252, 108569000, 119102644, 128623281, 136842248, 143368061, 147330902,
         146163034, 144088169, 140854555, 138082720, 135988566, 134689659, 134226579],
        [60964690, 48792651, 36949476, 25648728, 15115084, 5594447, -2624520, -9150333, -13113174, -11945306,
         -9870441, -6636827, -3864992, -1770838, -471931, -8851],
        [-18406, -297641, -845322, -1640240, -2649106, -3823039, -5089876, -6333243, -7277526, -6866303,
         -6053889, -4539545, -2991709, -1593178, -528753, -24754],
    ],
    np.int64,
)
SIGMOID11 = np.array(
    [
        [971, 1699, 2347, 2974, 3614, 4291, 5026, 5861, 6831, 7864, 8987, 10375, 11594, 13168, 14730, 32768],
        [32316, 29471, 25891, 22068, 18225, 29057, 22206, 16113, 10881, 27353, 16611, 9242, 4618, 20670, 8610,
         693],
        [13, 13, 13, 13, 13, 14, 14, 14, 14, 16, 16, 16, 16, 19, 19, 19],
        [16384, 16721, 17464, 18559, 19954, 21585, 23380, 25249, 27121, 28807, 30096, 31107, 31839, 32199,
         32502, 32724],
        [16384, 16047, 15304, 14209, 12814, 11183, 9388, 7519, 5647, 3961, 2672, 1661, 929, 569, 266, 44],
    ],
    np.int64,
)
TANH11 = np.array(
    [
        [512, 888, 1226, 1558, 1899, 2264, 2670, 3146, 3734, 4297, 4761, 5466, 6151, 7193, 8093, 32768],
        [32266, 29154, 25374, 21309, 17272, 26886, 19904, 13765, 8599, 19497, 12047, 7324, 3373, 26820, 5531,
         337],
        [11, 11, 11, 11, 11, 12, 12, 12, 12, 14, 14, 14, 14, 18, 18, 18],
        [0, 778, 2417, 4851, 7922, 11474, 15334, 19335, 23303, 26699, 28653, 30026, 31344, 31981, 32565, 32725],
    ],
    np.int64,
)
# fmt: on
EXP = [57364, 446161, 2008107, 5813551, 8388575]


def rhu(v, s):
    """floor(v / 2**s + 1/2)."""
    return v if s == 0 else (v + (1 << (s - 1))) >> s


def sat(v, bits):
    """Clamped to a two's complement width."""
    return np.clip(v, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def fixed(codes, exp2, frac, bits):
    """Codes of scale 2**exp2 with `frac` fraction bits: saturated to the left, rounded to the right; |shift| below 40."""
    codes = np.asarray(codes, np.int64)
    if exp2 > frac:
        return sat(rhu(codes, min(exp2 - frac, 62)), bits)
    # beyond 2**33 any operand but 0 saturates, and int64 would overflow
    return sat(codes * (1 << min(frac - exp2, 33)), bits)


def _segment(ends, a):
    return np.minimum((a[..., None] > ends).sum(-1), 15)


def _narrow(v, wide, bits):
    return v if bits == wide else sat(rhu(v, wide - bits), bits)


def sigmoid(x, platform, bits):
    """Q27 (venus: Q11) to `bits` bits."""
    x = np.asarray(x, np.int64)
    a = np.abs(x)
    if platform == "venus":
        j = _segment(SIGMOID11[0], a)
        v = (SIGMOID11[1][j] * x >> SIGMOID11[2][j]) + np.where(x < 0, SIGMOID11[4][j], SIGMOID11[3][j])
        return _narrow(sat(v, 16), 16, bits)
    j = _segment(SIGMOID27[0], a)
    if platform == "venusA":
        v = SIGMOID27[1][j] * x + (np.where(x < 0, SIGMOID27[5][j], SIGMOID27[4][j]) << 30)
        return sat(rhu(v, 59 - bits), bits)
    return _narrow((SIGMOID27[1][j] * x >> 27) + np.where(x < 0, SIGMOID27[3][j], SIGMOID27[2][j]), 32, bits)


def tanh(x, platform, bits):
    """Q27 (venus: Q11) to `bits` bits."""
    x = np.asarray(x, np.int64)
    sign, a = np.where(x < 0, -1, 1), np.abs(x)
    if platform == "venus":
        a = np.minimum(a, 32767)
        j = _segment(TANH11[0], a)
        return _narrow(sat((sign * TANH11[1][j] * a >> TANH11[2][j]) + sign * TANH11[3][j], 16), 16, bits)
    a = np.minimum(a, 2**31 - 1)
    j = _segment(TANH27[0], a)
    if platform == "venusA":
        return sat(rhu(sign * (TANH27[1][j] * a + (TANH27[3][j] << 30)), 59 - bits), bits)
    return _narrow((sign * TANH27[1][j] * a >> 27) + sign * TANH27[2][j], 32, bits)


def wide(table, x, bits):
    """GELU or swish of Q27; 32 bits Q27, 16 bits Q11, 8 bits Q3."""
    x = np.maximum(np.asarray(x, np.int64), 1 - 2**31)
    j = _segment(table[0], np.abs(x))
    v = np.where(x < 0, table[2][j], table[1][j]) * x + (table[3][j] << 30)
    return sat(rhu(v, 59 - bits), bits)


def _terms(x, once):
    """Distances to the maximum and terms of rows in Q25."""
    x = np.asarray(x, np.int64)
    m = x.max(-1, keepdims=True)
    if once:
        m = np.maximum(m, 1 - 2**31)
    v = rhu(sat(x - m, 32) * 774541002, 31)
    e, f = (v >> 23) + 1, (v & 0x7FFFFF) - (1 << 23)
    y = np.full_like(x, EXP[0])
    for p in EXP[1:4]:
        y = rhu(y * f, 23) + p
    if once:
        total = y * f * 128 + (EXP[4] << 30)
        return x - m, np.where(30 - e > 63, 0, (total >> np.minimum(29 - e, 63)) + 1 >> 1)
    y = rhu(y * f, 23) + EXP[4]
    return x - m, np.where(e > 0, sat(y << np.maximum(e, 0), 32), y >> np.minimum(np.maximum(-e, 0), 63))


def softmax(x, platform):
    """Rows of Q25 to Q15; the quotient by the chip's restoring division."""
    _, e = _terms(x, platform == "venusA")
    s = sat(e.sum(-1, keepdims=True), 32)
    a, c = np.full_like(s, 1 << 23), np.zeros_like(s)
    for _ in range(30):
        c, a = np.where(a >= s, 2 * (c + 1), 2 * c), np.where(a >= s, 2 * (a - s), 2 * a)
    return rhu(c * e, 38)


def log_softmax(x):
    """Rows of Q25 to Q15."""
    d, e = _terms(x, True)
    u = sat(rhu(e.sum(-1, keepdims=True), 8), 32) | 1
    lz = 31 - np.floor(np.log2(u)).astype(np.int64)
    i = ((u << lz) - (1 << 31)) >> 22
    ln = np.floor(np.log1p(i / 512) * 65536 + 0.5).astype(np.int64) + (16 - lz) * 45426
    return rhu(d, 10) - (ln >> 1)


def glu(x, exp2, platform, shift, bits):
    """int8 rows to codes: first half times the gate of the second, shifted right."""
    a, b = np.split(np.asarray(x, np.int64), 2, -1)
    gate = {
        "arcs": lambda: sigmoid(fixed(b, exp2, 27, 32), "arcs", 32),
        "venusA": lambda: rhu(sigmoid(fixed(b, exp2, 27, 32), "venusA", 32), 16),
        "venus": lambda: sigmoid(fixed(b, exp2, 11, 16), "venus", 8),
    }[platform]()
    a = sat(a << max(-shift, 0), 32)
    return sat(rhu(a * gate, max(shift, 0)), bits)
