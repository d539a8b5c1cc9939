"""Every rule of the chips on single nodes: what breaks it, what just keeps it."""

from dataclasses import replace

import pytest

from linger.chip import OPERATORS, PLATFORMS, NodeFacts, TensorFacts, check_node

CHIPS = ("arcs", "mars", "venusA", "venus")


def every(*what):
    return {p: set(what) for p in CHIPS}


def without(platform, *what):
    return {p: set(what) for p in CHIPS if p != platform}


def arcs(*what):
    return {"arcs": set(what), "mars": set(what)}


def node(op, platform, *shapes, bits=8, producer="Quant", **attributes):
    """A node whose first operand is an activation; ``(..., 'w')`` marks a constant."""
    inputs = []
    for shape in shapes:
        constant = shape is not None and shape[-1:] == ("w",)
        inputs.append(
            None
            if shape is None
            else TensorFacts(shape[:-1] if constant else shape, bits, constant, "" if constant else producer)
        )
    return NodeFacts(op, platform, "layer", attributes, tuple(inputs), (TensorFacts((1,), bits),))


def told(facts, severity="error"):
    """What is wrong; sizes that only fill the memory are another matter."""
    return {v.what for v in check_node(facts) if v.severity == severity} - {"activations"}


def conv(platform, kernel=3, c=4, o=4, size=8, **more):
    op = more.pop("op", "Conv2dInt")
    axes = 1 if op == "Conv1dInt" else 2
    group, batch, producer = more.get("group", 1), more.pop("batch", 1), more.pop("producer", "Quant")
    bias = [(o, "w")] if more.pop("bias", True) else []
    defaults = {"strides": [1] * axes, "dilations": [1] * axes, "pads": [0] * 2 * axes, "group": 1}
    scales = {"scale_x": 16.0, "scale_w": 16.0, "scale_o": 16.0}
    weight = (o, c // group, *[kernel] * axes, "w")
    attributes = defaults | scales | {"kernel_shape": [kernel] * axes} | more
    return node(op, platform, (batch, c, *[size] * axes), weight, *bias, producer=producer, **attributes)


@pytest.mark.parametrize(
    ("facts", "breaks"),
    [
        (lambda p: conv(p, 5), {}),
        (lambda p: conv(p, 6), every("kernel")),
        (lambda p: conv(p, 7, size=20, dilations=[2, 2]), {"venus": {"kernel", "dilation"}}),
        (lambda p: conv(p, 12, size=40, dilations=[8, 8], c=1), {"venus": {"kernel", "dilation"}}),
        (lambda p: conv(p, 13, size=40, dilations=[2, 1], c=1), every("kernel") | {"venus": {"kernel", "dilation"}}),
        (lambda p: conv(p, dilations=[3, 1]), every("dilation")),
        (lambda p: conv(p, strides=[3, 3]), every("stride")),
        (lambda p: conv(p, 1, strides=[2, 2]), every("kernel below stride")),
        (lambda p: conv(p, pads=[3, 3, 3, 3]), {}),
        (lambda p: conv(p, pads=[4, 0, 0, 0]), every("padding")),
        (lambda p: conv(p, o_bits=16), every("output_bits")),
        (lambda p: conv(p, batch=2), without("venus", "batch")),
        (lambda p: conv(p, scale_o=512.0), every("shift")),
        (lambda p: conv(p, act_type=2), every("act_type")),
        (
            lambda p: conv(p, parameter_bits=4, c=32, o=32),
            every("4-bit weights with bias") | {"venus": "weight_bits"},
        ),
        (lambda p: conv(p, 1, c=8, o=2, parameter_bits=4), every("4-bit weights with bias") | {"venus": "weight_bits"}),
        (
            lambda p: replace(conv(p, 1, c=8, o=2, parameter_bits=4), engine="later"),
            {"venus": "weight_bits", **arcs("4-bit weights with bias")},
        ),
        (lambda p: conv(p, 1, c=8, o=2, parameter_bits=4, bias=False), {"venus": "weight_bits"}),
        # rows of the input: align(C, 2 or 4) * ceil(W / 8) * 8 * kh
        (lambda p: conv(p, 1, c=256, o=1, size=64), {}),
        (lambda p: conv(p, 1, c=258, o=1, size=64), arcs("input rows")),
        (lambda p: conv(p, 1, c=1024, o=1, size=64), arcs("input rows")),
        (lambda p: conv(p, 1, c=1026, o=1, size=64), every("input rows")),
        (lambda p: conv(p, 1, c=512, o=512, group=512, size=64, pads=[0] * 4), arcs("input rows")),
        (lambda p: conv(p, 1, c=514, o=514, group=514, size=64, pads=[0] * 4), every("input rows")),
        # one output channel of a dense weight, a depthwise weight
        (lambda p: conv(p, 3, c=456, o=1, size=5), arcs("weight per output channel")),
        (lambda p: conv(p, 3, c=448, o=1, size=3), {}),
        (lambda p: conv(p, 5, c=328, o=328, group=328, size=5), arcs("depthwise weight")),
        (lambda p: conv(p, 5, c=320, o=320, group=320, size=5), {}),
        (
            lambda p: conv(p, 5, c=1312, o=1312, group=1312, size=5),
            arcs("depthwise weight", "input rows") | {"venus": {"depthwise weight", "input rows"}, "venusA": "input rows"},
        ),
        # venus looks at the wrong axes of a padded input
        (lambda p: conv(p, 3, c=4, o=4, group=2, pads=[1] * 4), {"venus": "padding of a grouped layer"}),
        (lambda p: conv(p, 3, c=2, o=4, pads=[1] * 4, producer="Split"), {"venus": "padding behind a split"}),
        (lambda p: conv(p, 3, c=2, o=4, pads=[1] * 4, producer=""), {}),
        # the 1-D node
        (lambda p: conv(p, 5, op="Conv1dInt"), {"venusA": "operator"}),
        (lambda p: conv(p, 12, op="Conv1dInt", size=20), {"venusA": "operator", "venus": "kernel"}),
        (
            lambda p: conv(p, op="Conv1dInt", dilations=[2]),
            {"venusA": "operator", "venus": {"dilation", "dilation of the 1-D node"}, **arcs("dilation of the 1-D node")},
        ),
        (
            lambda p: conv(p, op="Conv1dInt", group=4),
            {"venusA": "operator", **dict.fromkeys(("arcs", "mars", "venus"), "groups of the 1-D node")},
        ),
        (lambda p: conv(p, op="Conv1dInt", o_bits=16), {"venusA": "operator", **arcs("output_bits")}),
        (lambda p: conv(p, op="Conv1dInt", o_bits=32, scale_o=512.0), {"venusA": "operator", "venus": "shift"}),
        (lambda p: conv(p, op="ConvTranspose2dInt"), {}),
        (lambda p: conv(p, op="ConvTranspose2dInt", bias=False), every("bias")),
        (lambda p: conv(p, op="ConvTranspose2dInt", group=2), every("groups of a transposed convolution")),
        (lambda p: conv(p, op="ConvTranspose2dInt", parameter_bits=4), every("weight_bits")),
        (lambda p: conv(p, 6, op="ConvTranspose2dInt", size=4), {"venus": "kernel"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("platform", PLATFORMS)
def test_convolutions(facts, breaks, platform):
    expected = breaks.get(platform, set())
    assert told(facts(platform)) == ({expected} if isinstance(expected, str) else set(expected))


def linear(platform, k=8, o=4, shape=(1, 8), **more):
    return node("LinearInt", platform, shape, (o, k, "w"), (o, "w"), scale_x=16.0, scale_w=16.0, scale_o=16.0, **more)


def pool(platform, op, kernel, shape, pads=0, stride=None, **more):
    stride = kernel if stride is None else stride
    attributes = {
        "kernel_shape": [kernel] * 2,
        "strides": [stride] * 2,
        "pads": [pads] * 4,
        "scale_x": 8.0,
        "scale_o": 8.0,
    }
    return node(op, platform, shape, **attributes | more)


def later(*args, **more):
    return replace(pool(*args, **more), engine="later")


# engines without the faults of 562ddc7
LATER_POOLS = [
    (lambda p: later(p, "AvgPool2dInt", 7, (1, 12, 7, 7)), without("venus", "window over the whole map")),
    (lambda p: later(p, "AvgPool2dInt", 7, (1, 13, 7, 7)), {}),
    (lambda p: later(p, "AvgPool2dInt", 7, (1, 512, 7, 7), stride=1), {}),
    (lambda p: later(p, "AvgPool2dInt", 7, (1, 512, 7, 7)), every("input of the pooling")),
    (lambda p: later(p, "AvgPool2dInt", 12, (1, 4, 24, 24)), {}),
]
AVERAGE = "AvgPool2dInt"
POOLS = [
    (lambda p: pool(p, AVERAGE, 7, (1, 13, 7, 7)), every("stride of the pooling") | {"venus": "window over the whole map"}),
    (lambda p: pool(p, AVERAGE, 7, (1, 13, 7, 7), stride=1), every("window over the whole map")),
    (lambda p: pool(p, AVERAGE, 2, (1, 13, 2, 2)), every("window over the whole map")),
    # rows of the map: align8(C) * align(W, 8, 16 or 32) * kh
    (lambda p: pool(p, AVERAGE, 2, (1, 64, 64, 64), stride=1), every("input of the pooling")),
    (lambda p: pool(p, AVERAGE, 16, (1, 16, 17, 64), stride=1), {}),
    (lambda p: pool(p, AVERAGE, 16, (1, 17, 17, 64), stride=1), arcs("rows of the pooling")),
    (lambda p: pool(p, AVERAGE, 16, (1, 16, 17, 65), stride=1), arcs("rows of the pooling")),
    (lambda p: pool(p, AVERAGE, 16, (1, 33, 17, 64), stride=1), without("venus", "rows of the pooling")),
    # strides of the columns
    (lambda p: pool(p, AVERAGE, 4, (1, 8, 16, 16)), {}),
    (lambda p: pool(p, AVERAGE, 8, (1, 8, 16, 16)), without("venus", "stride of the pooling")),
    # kh * kw <= 7 * C * OH * OW, not for powers of two
    (lambda p: pool(p, AVERAGE, 10, (1, 8, 11, 10), stride=1), {}),
    (lambda p: pool(p, AVERAGE, 10, (1, 7, 11, 10), stride=1), without("venus", "window")),
    (lambda p: pool(p, AVERAGE, 16, (1, 1, 17, 16), stride=1), {}),
    # venus: 8 bits of the reciprocal, 16 bits of the sum
    (lambda p: pool(p, AVERAGE, 11, (1, 8, 22, 22), stride=1), {}),
    (lambda p: pool(p, AVERAGE, 12, (1, 8, 24, 24), stride=1), {"venus": "window"}),
    (lambda p: pool(p, AVERAGE, 32, (1, 4, 33, 33), stride=1), {"venus": "window"}),
]  # fmt: skip


def cat(platform, scales, scale_o, rank=2):
    attributes = {f"scale_x_{i}": s for i, s in enumerate(scales)}
    return node("iqCat", platform, *[(1,) * rank] * len(scales), scale_o=scale_o, dim=0, **attributes)


def two(op, platform, x, y, **scales):
    return node(op, platform, x, y, **{"scale_x": 16.0, "scale_y": 16.0, "scale_o": 16.0} | scales)


@pytest.mark.parametrize(
    ("facts", "breaks"),
    [
        (lambda p: linear(p, shape=(1, 2, 2, 8)), every("rank") | {"venusA": {"rank", "rows"}}),
        (lambda p: linear(p, o_bits=16), without("venus", "output_bits")),
        (lambda p: linear(p, parameter_bits=4), {"venusA": "weight_bits", **arcs("4-bit weights with bias")}),
        (lambda p: linear(p, shape=(1, 3, 8)), {"venusA": "rows"}),
        (lambda p: linear(p, shape=(1, 3, 8), o=1), {}),
        (lambda p: linear(p, k=2048, o=512, shape=(1, 2048)), every("parameter")),
        (lambda p: linear(p, k=784, o=512, shape=(1, 784)), without("venus", "parameter")),
        (lambda p: pool(p, "MaxPool", 13, (1, 4, 26, 26)), every("kernel")),
        (lambda p: pool(p, "MaxPool", 6, (1, 4, 26, 26)), {"venus": "kernel"}),
        (lambda p: pool(p, "MaxPool", 26, (1, 4, 26, 26)), {}),
        (lambda p: pool(p, "MaxPool", 2, (1, 4, 6, 6), stride=4), every("kernel below stride")),
        (lambda p: pool(p, "MaxPool", 2, (1, 4, 6, 6), pads=3), every("padding")),
        (lambda p: pool(p, "MaxPool", 2, (1, 4, 6, 6), ceil_mode=1), every("ceil_mode")),
        (lambda p: pool(p, "AvgPool2dInt", 2, (2, 4, 6, 6)), without("venus", "batch")),
        (lambda p: pool(p, "AvgPool2dInt", 2, (1, 4, 6, 6), scale_o=16.0), every("scale_o")),
        *LATER_POOLS,
        *POOLS,
        (lambda p: two("iqAdd", p, (1, 4), (1, 4)), {}),
        (lambda p: two("iqAdd", p, (1, 4), (1, 1)), every("operands of two shapes")),
        (lambda p: two("iqAdd", p, (1, 4), (1, 4), scale_o=32.0), every("scale_o")),
        (lambda p: two("iqMul", p, (1, 4, 2, 2), (1, 4, 1, 1)), {}),
        (lambda p: two("iqMul", p, (1, 5, 2, 2), (1, 5, 1, 1)), every("product per channel with")),
        (lambda p: two("iqMul", p, (2, 4, 2, 2), (2, 4, 1, 1)), every("product per channel with batch")),
        (lambda p: two("iqMul", p, (1, 4, 2, 2), (1, 1, 2, 2)), every("operands of two shapes")),
        (lambda p: two("iqMul", p, (1, 4), (1, 4), scale_o=512.0), every("shift")),
        (lambda p: two("iqSub", p, (1, 4), (1, 4)), every("operator")),
        (lambda p: two("iqSub", p, (1, 4), (1, 4), scale_x=32.0), every("difference")),
        (lambda p: replace(two("iqSub", p, (1, 4), (1, 4), scale_x=32.0), engine="later"), {}),
        (lambda p: cat(p, [16.0, 8.0], 16.0), {}),
        (lambda p: cat(p, [16.0, 8.0], 8.0), {"venusA": "scale of input 0"}),
        (lambda p: cat(p, [1.0, 128.0], 128.0), every("left shift of input 0")),
        (lambda p: cat(p, [1.0, 64.0], 64.0), {}),
        (lambda p: cat(p, [1.0, 1.0], 1.0, rank=5), every("rank")),
        (lambda p: cat(p, [1.0], 1.0), every("inputs")),
        (lambda p: two("BmmInt", p, (1, 4, 256), (1, 256, 128)), {}),
        (lambda p: two("BmmInt", p, (1, 4, 256), (1, 256, 129)), {"venus": "second matrix"}),
        (lambda p: two("BmmInt", p, (1, 1, 4, 4), (1, 1, 4, 4)), every("rank")),
        (lambda p: two("BmmInt", p, (4, 4), (4, 4), o_bits=16), without("venusA", "output_bits")),
        (lambda p: two("BmmInt", p, (4, 4), (4, 4), scale_o=512.0), every("shift")),
        (lambda p: node("Requant", p, (1, 4), scale_x=1.0, scale_o=128.0), every("left shift")),
        (lambda p: node("Requant", p, (1, 4), scale_x=2.0, scale_o=1.0, o_bits=16), every("right shift of a wide result")),
        (lambda p: node("Transpose", p, (1, 2, 3, 4), perm=[0, 2, 1, 3]), {"venusA": "permutation"}),
        (lambda p: node("Transpose", p, (1, 2, 3, 4), perm=[3, 2, 1, 0]), every("permutation")),
        (lambda p: node("Transpose", p, (1, 2, 3, 4), perm=[0, 2, 3, 1]), {}),
        (lambda p: node("Slice", p, (4, 4), (2, "w"), (2, "w"), (2, "w")), every("axes of a Slice")),
        (lambda p: node("Split", p, (4, 4), axis=0, split=[2, 2]), every("dims")),
        (lambda p: node("Split", p, (4, 4), axis=0, split=[2, 2], dims=2), {}),
        (lambda p: node("Reshape", p, (1,) * 8), every("rank")),
        (lambda p: node("iqPad", p, (1, 2, 3, 3), mode="constant"), without("venus", "operator")),
        (lambda p: node("iqPad", p, (1, 2, 3, 3), mode="reflect"), {p: "mode" if p == "venus" else "operator" for p in CHIPS}),
        (lambda p: node("iqVar", p, (1, 2, 3)), every("operator")),
        (lambda p: node("ArgMax", p, (1, 4), axis=1), {}),
        (lambda p: node("ArgMax", p, (2, 4), axis=0), every("axis", "batch of ArgMax")),
        (
            lambda p: node("LayerNormInt", p, (1, 4, 8), (8, "w"), scale_w=8.0, scale_o=8.0),
            every("beta") | {"venus": {"beta", "width of gamma"}},
        ),
        (lambda p: node("LSTMInt", p, (2, 4, 8), *[(1, "w")] * 4, hidden_size=8, input_size=8, batch_first=1), every("batch")),
        (
            lambda p: node("LSTMInt", p, (1, 9, 8), *[(1, "w")] * 4, hidden_size=8, input_size=8, batch_first=p == "venus"),
            {"venus": "time steps"},
        ),
        (
            lambda p: node("LSTMInt", p, (1, 4, 8), *[(1, "w")] * 6, hidden_size=8, input_size=8, batch_first=p == "venus"),
            every("inputs"),
        ),
        (
            lambda p: node("LSTMInt", p, (1, 4, 8), *[(1, "w")] * 4, hidden_size=8, input_size=8, batch_first=p != "venus"),
            every("batch_first"),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("platform", PLATFORMS)
def test_other_operators(facts, breaks, platform):
    expected = breaks.get(platform, set())
    assert told(facts(platform)) == ({expected} if isinstance(expected, str) else set(expected))


LSTM_INPUTS = [(1, 4, 8), (32, 8, "w"), (32, 8, "w"), (32, "w"), (32, "w")]


@pytest.mark.parametrize(
    ("facts", "what", "shipped", "later"),
    [
        (conv("arcs", parameter_bits=4, c=32, o=32), "4-bit weights with bias", "error", "note"),
        (conv("venus", op="ConvTranspose2dInt"), "transposed convolution", "note", "note"),
        (conv("venus", 3, c=2, o=4, pads=[1] * 4, producer="Relu"), "padding of a thin map", "error", "warning"),
        (linear("venusA", shape=(2, 8)), "rows", "error", "warning"),
        (linear("arcs", k=512, o=512, shape=(1, 512)), "weight", "note", "note"),
        (pool("arcs", "AvgPool2dInt", 4, (1, 24, 4, 4)), "window over the whole map", "error", "warning"),
        (pool("venus", "AvgPool2dInt", 3, (1, 24, 3, 3)), "window over the whole map", "error", "warning"),
        (two("iqAdd", "arcs", (1, 4), (1, 4), scale_y=32.0), "scale_y", "note", "note"),
        (node("GRUInt", "arcs", (1, 4, 8), hidden_size=8), "engine revision of", "error", None),
        (node("GRUInt", "arcs", (1, 4, 8), hidden_size=8), "GRU", None, "warning"),
        (node("iqTanh", "venusA", (1, 4), scale_x=16.0, scale_o=128.0), "engine revision of", "error", None),
        (node("iqSigmoid", "venusA", (1, 4), scale_x=2.0**14, scale_o=128.0), "sigmoid", "error", "warning"),
        (node("LogSoftmaxInt", "venusA", (1, 4)), "LogSoftmaxInt", "error", "warning"),
        (node("SoftmaxInt", "venusA", (1, 4), bits=16), "SoftmaxInt", "error", "warning"),
        (node("SoftmaxInt", "venusA", (1, 4)), "SoftmaxInt", None, "warning"),
        (node("LSTMInt", "arcs", *LSTM_INPUTS, hidden_size=8, input_size=8), "LSTM", "note", None),
        (node("LSTMInt", "venusA", *LSTM_INPUTS, hidden_size=33, input_size=8), "hidden size", "error", "warning"),
        (node("LSTMInt", "venusA", *LSTM_INPUTS, hidden_size=32, input_size=8), "hidden size", None, None),
    ],
)
def test_hazards_are_errors_of_the_engine_that_has_them(facts, what, shipped, later):
    for engine, severity in ((None, shipped), ("562ddc7", shipped), ("later", later)):
        found = [v for v in check_node(replace(facts, engine=engine)) if v.what == what]
        # what depends on the memory plan of an engine whose faults are not known
        pools = engine == "later" and what == "window over the whole map"
        wanted = {severity} if severity else set()
        assert pools or {v.severity for v in found} == wanted, engine
        assert all(not v.refused and v.limit for v in found)
        assert all(v.remedy for v in found if v.severity != "note")


def test_a_node_of_unknown_sizes_breaks_nothing_it_does_not_show():
    for op in OPERATORS:
        for platform in PLATFORMS:
            quiet = {
                "operator",
                "beta",
                "bias",
                "inputs",
                "dims",
                "permutation",
                "packer revision for",
                "engine revision of",
                "sigmoid",
            }
            assert told(NodeFacts(op, platform, "layer")) <= quiet, op


def test_every_error_says_what_helps():
    broken = NodeFacts("Conv2dInt", "venus", "layer", {"kernel_shape": [9, 9], "strides": [3, 3], "dilations": [2, 2]})
    assert all(v.remedy and v.refused and v.operator == "Conv2dInt" for v in check_node(broken))
    assert str(check_node(broken)[0]).startswith("layer: kernel 9, the chip takes 1..5 (")


def test_memory():
    full = node("Relu", "arcs", (1, 2, 256, 512))
    assert [v.what for v in check_node(full)] == []  # the result of this node has one element
    over = node("Relu", "arcs", (1, 2, 256, 768))
    (found,) = check_node(over)
    assert (found.what, found.value, found.severity, found.refused) == ("activations", "393217 bytes", "error", False)
    (found,) = check_node(node("Gather", "arcs", (1000, 400, "w"), (1, 5)))
    assert (found.what, found.value) == ("parameter", "400000 bytes")
