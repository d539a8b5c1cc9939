"""A recorded model as a torch module: the same graph, float parameters that are its codes over their scales."""

import warnings

import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import nn

import linger
from linger.quantizers import Quantizer
from linger.runtime import Format, info, tag

LAYERS = (
    "Conv2dInt",
    "Conv1dInt",
    "ConvTranspose2dInt",
    "LinearInt",
    "BatchNorm2dInt",
    "LayerNormInt",
    "Gather",
    "LSTMInt",
)
# operator of the file -> functional operator of linger
SITES = {
    "iqAdd": "add", "iqSub": "sub", "iqMul": "mul", "iqDiv": "div", "iqCat": "cat", "BmmInt": "bmm", "GluInt": "glu",
    "iqSigmoid": "sigmoid", "iqTanh": "tanh", "SoftmaxInt": "softmax", "LogSoftmaxInt": "logsoftmax", "Requant": "requant",
}  # fmt: skip


class Step:
    """One node with its attributes and constants."""

    def __init__(self, index, node, constants):
        self.op, self.inputs, self.outputs = node.op_type, list(node.input), list(node.output)
        self.name = f"n{index}"
        self.at = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.at |= {"w_bits": self.at.get("parameter_bits", self.at.get("w_bits", 8))}
        self.constants = [constants.get(n) for n in node.input]
        self.site, self.sizes = None, None

    def scale(self, name):
        return float(self.at[name])

    def real(self, i, *scales):
        """Constant ``i`` as floats; exact, or the case cannot be a float module."""
        total = 1.0
        for s in scales:
            total *= s if isinstance(s, float) else self.scale(s)
        value = torch.from_numpy(self.constants[i].copy()).double() / total
        assert torch.equal(value.float().double(), value), "a parameter that float32 does not hold"
        return nn.Parameter(value.float())


class Rebuilt(nn.Module):
    """The graph of a file; ``forward`` takes the inputs in order and returns the outputs in order."""

    def __init__(self, model):
        super().__init__()
        graph = onnx.load_from_string(model).graph
        constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.inputs = [i.name for i in graph.input if i.name not in constants]
        self.outputs = [o.name for o in graph.output]
        self.steps = [Step(i, n, constants) for i, n in enumerate(graph.node)]
        self.readers = {}
        sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}
        for node in graph.node:
            if node.op_type == "Quant":
                sizes[node.output[0]] = sizes.get(node.input[0])
        for step in self.steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)
            step.sizes = sizes.get(step.inputs[0])
            if step.op in LAYERS:
                setattr(self, step.name, MAKE[step.op](step))

    def forward(self, *given):
        values = dict(zip(self.inputs, given, strict=True))
        for step in self.steps:
            operands = [values[n] for n in step.inputs if n in values]
            result = self._run(step, operands)
            results = result if isinstance(result, (tuple, list)) else [result]
            values |= dict(zip(step.outputs, results, strict=False))
        return tuple(values[name] for name in self.outputs)

    def _run(self, step, xs):
        if step.op == "Quant":
            owned = all(s.op in LAYERS and s.op != "Gather" for s in self.readers.get(step.outputs[0], ()))
            return xs[0] if owned else quantized(xs[0], step)
        if step.op == "Dequant":
            return xs[0]
        if step.op in LAYERS:
            return RUN.get(step.op, lambda m, s, v: m(v[0]))(getattr(self, step.name), step, xs)
        return RUN[step.op](step, *xs)


def quantized(x, step):
    """A graph input whose reader has no quantizer, or computes in float on floats."""
    quantizer = Quantizer(int(step.at.get("data_bits", 8)))
    fix(quantizer, step.scale("scale_x"))
    out = quantizer.eval()(x)
    return tag(out.value, Format(out.scale, quantizer.bits, out.codes))


def conv(step):
    axes, w = len(step.at["kernel_shape"]), step.real(1, "scale_w")
    transposed = step.op == "ConvTranspose2dInt"
    pads, group = step.at["pads"], int(step.at.get("group", 1))
    even = pads[:axes] == pads[axes:]
    kind = {1: nn.Conv1d, 2: nn.ConvTranspose2d if transposed else nn.Conv2d}[axes]
    channels = (w.shape[0], w.shape[1]) if transposed else (w.shape[1] * group, w.shape[0])
    more = {"output_padding": tuple(step.at["output_padding"][:2])} if transposed else {"groups": group}
    assert even or not transposed
    m = kind(*channels, tuple(w.shape[2:]), stride=tuple(step.at["strides"]), padding=tuple(pads[:axes]) if even else 0,
             dilation=tuple(step.at["dilations"]), bias=len(step.inputs) > 2, **more)  # fmt: skip
    m.weight = w
    if m.bias is not None:
        m.bias = step.real(2, "scale_x", "scale_w")
    return m


def run_conv(m, step, xs):
    axes, pads = len(step.at["kernel_shape"]), step.at["pads"]
    if pads[:axes] == pads[axes:]:
        return m(xs[0])
    border = [p for a in reversed(range(axes)) for p in (pads[a], pads[axes + a])]
    return m(F.pad(xs[0], border))


def linear(step):
    w = step.real(1, "scale_w")
    m = nn.Linear(w.shape[1], w.shape[0], bias=len(step.inputs) > 2)
    m.weight = w
    if m.bias is not None:
        m.bias = step.real(2, "scale_x", "scale_w")
    return m


def batch_norm(step):
    w = step.real(1, "scale_w")
    m = nn.BatchNorm2d(len(w))
    m.weight, m.bias = w, step.real(2, "scale_x", "scale_w")
    m.running_var.fill_(1 - m.eps)
    return m


def layer_norm(step):
    w = step.real(1, "scale_w")
    last = step.sizes[-1] if step.sizes else len(w)
    shape = (last,) if last == len(w) else (len(w) // last, last)
    m = nn.LayerNorm(shape)
    m.weight, m.bias = (nn.Parameter(p.detach().reshape(shape)) for p in (w, step.real(2, 1024.0, "scale_w")))
    return m


def embedding(step):
    codes = torch.from_numpy(step.constants[0].copy()).float()
    scale = next((s for s in (step.at.get("scale_o"),) if s), 1.0)
    return nn.Embedding.from_pretrained(codes / scale, freeze=False)


def lstm(step):
    m = nn.LSTM(int(step.at["input_size"]), int(step.at["hidden_size"]), batch_first=True)
    first = len(step.inputs) - 4
    scales = (("scale_iw",), ("scale_hw",), ("scale_x", "scale_iw"), ("scale_o", "scale_hw"))
    for i, name in enumerate(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")):
        setattr(m, name, step.real(first + i, *scales[i]))
    return m


def run_lstm(m, step, xs):
    """Lengths cut the sequence; torch has no layer that runs backwards only, so the sequence is turned."""
    x, *more = xs
    steps = int(more[0]) if more else x.shape[1]
    cell = 2.0**7 if step.at["platform"] == b"venus" else 2.0**15
    states = (more[1] / step.scale("scale_o"), more[2] / cell) if len(more) == 3 else None
    back = not int(step.at.get("go_forward", 1))
    x = x.narrow(1, 0, steps)
    y, (h, c) = m(x.flip(1) if back else x, states)
    return y.flip(1) if back else y, h, c


MAKE = {
    "Conv2dInt": conv, "Conv1dInt": conv, "ConvTranspose2dInt": conv, "LinearInt": linear, "BatchNorm2dInt": batch_norm,
    "LayerNormInt": layer_norm, "Gather": embedding, "LSTMInt": lstm,
}  # fmt: skip


def constant_number(step, i):
    c = step.constants[i]
    return None if c is None or c.shape != () else float(c) / step.scale("scale_y")


def binary(function):
    def run(step, *xs):
        number = constant_number(step, 1)
        return function(xs[0], xs[1] if number is None else number)

    return run


def piece(step, x):
    starts, ends, axes = (step.constants[i] for i in (1, 2, 3))
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        first, last, _ = slice(start, end).indices(x.shape[axis])
        x = x.narrow(axis, first, last - first)
    return x


def window(function):
    def run(step, x):
        pads = step.at["pads"]
        assert pads[:2] == pads[2:]
        return function(x, tuple(step.at["kernel_shape"]), tuple(step.at["strides"]), tuple(pads[:2]))

    return run


def reshape(step, x):
    sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(step.constants[1].tolist())]
    return x.reshape(sizes)


def squeeze(step, x):
    for axis in sorted(step.at["axes"], reverse=True):
        x = x.squeeze(axis)
    return x


def unsqueeze(step, x):
    for axis in sorted(step.at["axes"]):
        x = x.unsqueeze(axis)
    return x


def trailing(function):
    """The engines normalise all that follows the axis together."""

    def run(step, x):
        axis = int(step.at.get("axis", -1))
        return function(x.flatten(axis), -1).reshape(x.shape) if -1 < axis < x.dim() - 1 else function(x, -1)

    return run


def padding(step):
    """torch's order: last axis first, begin and end."""
    pads = step.constants[1].tolist()
    rank = len(pads) // 2
    return [p for a in reversed(range(rank)) for p in (pads[a], pads[rank + a])]


RUN = {
    "Conv2dInt": run_conv,
    "Conv1dInt": run_conv,
    "Gather": lambda m, step, xs: m(xs[-1].long()),
    "LSTMInt": run_lstm,
    "AvgPool2dInt": window(F.avg_pool2d),
    "MaxPool": window(F.max_pool2d),
    "Relu": lambda step, x: F.relu(x),
    "iqAdd": lambda step, x, y: x + y,
    "iqSub": lambda step, x, y: x - y,
    "iqMul": binary(lambda x, y: x * y),
    "iqDiv": binary(lambda x, y: x / y),
    "iqCat": lambda step, *xs: torch.cat(xs, int(step.at["dim"])),
    "BmmInt": lambda step, x, y: torch.bmm(x, y),
    "iqSigmoid": lambda step, x: torch.sigmoid(x),
    "iqTanh": lambda step, x: torch.tanh(x),
    "SoftmaxInt": trailing(torch.softmax),
    "LogSoftmaxInt": trailing(torch.log_softmax),
    "GluInt": lambda step, x: F.glu(x, int(step.at["dim"])),
    "Reshape": reshape,
    "Flatten": lambda step, x: x.flatten(1),
    "Transpose": lambda step, x: x.permute(step.at["perm"]),
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Slice": piece,
    "Split": lambda step, x: x.split(list(step.at["split"]), int(step.at["axis"])),
    "iqPad": lambda step, x: F.pad(x, padding(step)),
    "ArgMax": lambda step, x: (x.max(-1, keepdim=True),),
    "ShuffleChannel": lambda step, x: F.channel_shuffle(x, int(step.at["groups"])),
}


def sections(net):
    """Widths of every layer and operator, as a configuration file says them."""
    text, count = "", 0
    for step in net.steps:
        if step.op not in LAYERS and step.op not in SITES:
            continue
        kind = SITES.get(step.op)
        if kind is not None:
            step.site = f"_linger_qtensor_q{kind}_{count}"
            count += 1
        widths = {
            "input_bits": step.at.get("x_bits", 8),
            "weight_bits": step.at["w_bits"],
            "output_bits": step.at.get("o_bits", 8),
        }
        inner = ", ".join(f"{k}: {v}" for k, v in widths.items())
        text += f"{step.name}:\n  name: ['{step.site or step.name}']\n  quant_info: {{{inner}}}\n"
    return text


WEIGHTS = {
    "LSTMInt": {"weightih_quantizer": "scale_iw", "weighthh_quantizer": "scale_hw"},
    "Gather": {"weight_quantizer": "scale_o"},
}


def initialised(case, path):
    """The recorded model as an initialised module in eval mode, every quantizer at the recorded scale."""
    net = Rebuilt(case.model)
    values = [torch.from_numpy(case.floats[name].copy()) for name in net.inputs]
    path.write_text(f"platform: {case.platform}\nclamp_info: {{clamp_factor_value: null}}\n{sections(net)}")
    model = linger.init(net, str(path)).eval()  # without inputs: a BatchNorm behind a layer stays one
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="linger: these quantizers have seen no data")
        model(*values)
    for step in net.steps:
        if step.op not in LAYERS and step.op not in SITES:
            continue
        module = getattr(model, step.site or step.name)
        if step.site is None:
            fix(module.input_quantizer, step.at.get("scale_x")) if hasattr(module, "input_quantizer") else None
            for name, scale in WEIGHTS.get(step.op, {"weight_quantizer": "scale_w"}).items():
                fix(getattr(module, name), step.at.get(scale))
        else:
            names = (
                ("scale_x", "scale_y") if "scale_x" in step.at else [f"scale_x_{i}" for i in range(len(step.inputs))]
            )
            for quantizer, name in zip(module.input_quantizer, names, strict=False):
                fix(quantizer, step.at.get(name))
        fix(getattr(module, "output_quantizer", None), step.at.get("scale_o"))
    return model, values


def fix(quantizer, scale):
    """Let a quantizer stand at a scale."""
    if quantizer is not None and scale is not None:
        quantizer.scale.fill_(float(scale))
        quantizer.running_data.fill_(2.0 ** (quantizer.bits - 1) / float(scale))
        quantizer.is_init.fill_(True)
        quantizer.n_batches.fill_(1)


def integers(y):
    """Codes of a result in the chip's width; of ``max`` the values, then the indices, as the engines write them."""
    if isinstance(y, tuple):
        return torch.cat([integers(y[0]).int(), y[1].int()])
    fmt = info(y)
    assert fmt is not None and fmt.exact, "the module computed in float"
    kind = {8: torch.int8, 16: torch.int16, 32: torch.int32}[fmt.bits]
    codes = fmt.codes if fmt.codes is not None else (y.double() * float(fmt.scale)).round()
    return codes.to(kind)
