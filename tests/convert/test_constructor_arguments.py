"""Every constructor argument of every torch class that is converted: kept in both stages, or refused by name."""

import copy
import inspect
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.rnn import RNNBase

import linger
from linger.nn import Conv2dInt, swaps
from linger.nn.constrained.fused import EmptyBatchNorm, NormalizeConvBN2d
from linger.nn.constrained.layers import CONSTRAINED

torch.manual_seed(0)
MAPS, ROWS, PLACES = torch.randn(4, 4, 9, 9), torch.randn(4, 4, 9), torch.tensor([[1, 2, 2, 6], [3, 1, 1, 0]])
COMMON = {"device": "cpu", "dtype": torch.float64}
CONV = {
    "stride": 2,
    "padding": [1, "same"],
    "dilation": 2,
    "groups": 2,
    "bias": False,
    "padding_mode": ["reflect", "replicate", "circular"],
} | COMMON
TRANSPOSED = {
    "stride": 2,
    "padding": 1,
    "output_padding": 1,
    "groups": 2,
    "bias": False,
    "dilation": 2,
    "padding_mode": None,  # torch refuses all but "zeros"
} | COMMON
NORM = {"eps": 0.5, "momentum": [0.7, None], "affine": False, "track_running_stats": False, "bias": False} | COMMON
RECURRENT = {
    "num_layers": 2,
    "bias": False,
    "batch_first": True,
    "dropout": 1.0,
    "bidirectional": True,
    "proj_size": "refused",
} | COMMON
# class: input, arguments that it needs, all others with values that are not the default
TABLE = {
    nn.Conv1d: (ROWS, {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, CONV),
    nn.Conv2d: (MAPS, {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, CONV),
    nn.ConvTranspose1d: (ROWS, {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, TRANSPOSED),
    nn.ConvTranspose2d: (MAPS, {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, TRANSPOSED),
    nn.Linear: (ROWS, {"in_features": 9, "out_features": 6}, {"bias": False} | COMMON),
    nn.Embedding: (
        PLACES,
        {"num_embeddings": 7, "embedding_dim": 16},
        {
            "padding_idx": 2,
            "max_norm": 1.0,
            "norm_type": 1.0,
            "scale_grad_by_freq": True,
            "sparse": True,
            "_weight": torch.randn(7, 16),
            "_freeze": True,
        }
        | COMMON,
    ),
    nn.BatchNorm1d: (ROWS, {"num_features": 4}, NORM),
    nn.BatchNorm2d: (MAPS, {"num_features": 4}, NORM),
    nn.LayerNorm: (ROWS, {"normalized_shape": 9}, {"eps": 0.5, "elementwise_affine": False, "bias": False} | COMMON),
    nn.MultiheadAttention: (
        torch.randn(5, 4, 16),
        {"embed_dim": 16, "num_heads": 2},
        {
            "dropout": 1.0,
            "bias": False,
            "add_bias_kv": "refused",
            "add_zero_attn": "refused",
            "kdim": 8,
            "vdim": 8,
            "batch_first": True,
        }
        | COMMON,
    ),
    nn.LSTM: (torch.randn(5, 4, 8), {"input_size": 8, "hidden_size": 6}, RECURRENT),
    nn.GRU: (
        torch.randn(5, 4, 8),
        {"input_size": 8, "hidden_size": 6},
        RECURRENT | {"proj_size": None},
    ),  # torch refuses it
}
WITH = {  # arguments that have no meaning alone
    "output_padding": {"stride": 2},
    "norm_type": {"max_norm": 1.0},
    "dropout": {"num_layers": 2},
    "kdim": {"vdim": 8},
    "vdim": {"kdim": 8},
}


def choices(cls):
    """Argument, value, what else must be given."""
    for name, values in TABLE[cls][2].items():
        alone = name == "dropout" and cls is nn.MultiheadAttention
        for value in values if isinstance(values, list) else [values]:
            yield name, value, {} if alone else WITH.get(name, {})


CASES = [(cls, *choice) for cls in TABLE for choice in choices(cls) if choice[1] is not None or choice[0] == "momentum"]


def ids(case):
    return f"{case[0].__name__}-{case[1]}-{case[2] if not isinstance(case[2], torch.Tensor) else 'tensor'}"


def test_the_table_has_every_class_and_argument():
    assert TABLE.keys() == swaps.keys() == CONSTRAINED.keys()
    for cls, (_, needed, others) in TABLE.items():
        init = inspect.signature(RNNBase.__init__ if issubclass(cls, RNNBase) else cls.__init__)
        names = [n for n in init.parameters if n not in ("self", "mode")]
        assert sorted(names) == sorted([*needed, *others]), cls


def build(case, default=False):
    cls, name, value, more = case
    given = {"proj_size": 3, "add_bias_kv": True, "add_zero_attn": True}[name] if value == "refused" else value
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # padding="same" warns of even kernels
        m = cls(**TABLE[cls][1], **more, **({} if default else {name: given}))
    with torch.no_grad():
        for p in m.parameters():  # ranges that integers hold: what saturates has no gradient
            p.copy_(torch.linspace(0.45, 0.9, p.numel()).reshape(p.shape) if p.std() == 0 else p / p.abs().max() / 1.1)
    return m


def run(m, case, x):
    kind, name = case[:2]
    if kind is nn.MultiheadAttention:
        narrow = name in ("kdim", "vdim") and m.kdim == 8
        y = m(x, x[..., :8], x[..., :8], need_weights=False) if narrow else m(x, x, x, need_weights=False)
    else:
        y = m(x)
    return y if isinstance(y, torch.Tensor) else y[0]


def distance(a, b):
    """Noise in parts of the signal."""
    a, b = (t.detach().double() for t in (a, b))
    a, b = (t.to_dense() if t.is_sparse else t for t in (a, b))
    return float((a - b).norm() / a.norm().clamp_min(1e-3))


def outcome(m, case, x):
    """What a layer does: evaluation, training, gradients, statistics."""
    results = {"eval": run(m.eval(), case, x)}
    results["train"] = y = run(m.train(), case, x)
    if y.requires_grad:
        y.square().sum().backward()
    results |= {f"grad {n}": p.grad for n, p in m.named_parameters() if p.grad is not None and "quantizer" not in n}
    return results | {n: b for n, b in m.named_buffers() if "running_" in n and "quantizer" not in n}


def compare(wanted, without, got, most):
    """As torch computes it; and where the argument matters, nearer to that than to a layer without it."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].layout == value.layout and got[name].shape == value.shape, name
        far, other = distance(value, got[name]), without.get(name)
        assert far <= most, (name, far)
        matters = 0.6 if name.startswith("grad") else 0.05
        if other is not None and other.shape == value.shape and distance(value, other) > matters:
            assert far < distance(other, got[name]), name


@pytest.mark.parametrize("case", [c for c in CASES if c[2] != "refused"], ids=ids)
def test_arguments_are_kept(case, tmp_path):
    cls, name, value, _ = case
    plain, default, x = build(case), build(case, default=True), TABLE[cls][0]
    x = x.to(torch.float64) if value is torch.float64 and x.is_floating_point() else x
    default.to(next((p.dtype for p in plain.parameters()), torch.float32))
    wanted = outcome(copy.deepcopy(plain), case, x)
    without = {} if name in ("kdim", "vdim") else outcome(default, case, x)
    (tmp_path / "c.yaml").write_text(
        "clamp_info: {clamp_factor_value: null, clamp_activation_value: null}\nquant_info: {a_calibrate_name: abs_max}\n"
    )
    m = linger.constrain(copy.deepcopy(plain), config_file=tmp_path / "c.yaml")
    assert type(m) is CONSTRAINED[cls]
    compare(wanted, without, outcome(m, case, x), 1e-5)
    q = linger.init(copy.deepcopy(plain), config_file=tmp_path / "c.yaml")
    assert isinstance(q, swaps[cls])
    kept = getattr(plain, name, None)
    assert isinstance(kept, (torch.Tensor, type(None))) or getattr(q, name) == kept
    with linger.calibration(q):
        run(q.eval(), case, x)
    compare(wanted, without, outcome(q, case, x), 0.8 if cls is nn.MultiheadAttention else 0.6)  # softmax: steep


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("case", [c for c in CASES if c[2] == "refused"], ids=ids)
def test_arguments_without_a_form_are_refused_by_name(case, caplog):
    plain, x = build(case), TABLE[case[0]][0]
    wanted = run(plain.eval(), case, x)
    q = linger.init(nn.ModuleList([plain]))
    (said,) = [r.getMessage() for r in caplog.records]
    assert case[1].split("_")[0] in said and "stay in float" in said and "0 (" in said
    assert torch.equal(run(q[0], case, x), wanted)


@pytest.mark.parametrize("norm", [{"bias": False}, {"affine": False}, {"eps": 0.5}, {"momentum": None}])
@pytest.mark.parametrize("fold", ["once", "step", "constrain"])
def test_arguments_of_a_norm_that_is_folded_are_kept(norm, fold):
    def net():
        return nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, **norm), nn.ReLU())

    torch.manual_seed(0)
    plain = net()
    for _ in range(5):
        plain.train()(MAPS)
    plain.eval()
    q = linger.constrain(net()) if fold == "constrain" else linger.init(net(), fold_bn=fold)
    q.load_state_dict(plain.state_dict())
    assert isinstance(q[0], (NormalizeConvBN2d, Conv2dInt)) and isinstance(q[1], EmptyBatchNorm)
    if fold != "constrain":
        with linger.calibration(q, a_calibrate_name="abs_max"):
            q.eval()(MAPS)
    assert distance(plain(MAPS), q.eval()(MAPS)) < 0.1
    q.train()(MAPS).sum().backward()
    assert all(p.grad is not None for p in q.parameters())


def test_sparse_gradients_train_with_sparse_adam():
    torch.manual_seed(0)
    q = linger.init(nn.Sequential(nn.Embedding(9, 4, sparse=True)))
    optimizer = torch.optim.SparseAdam(q.parameters(), lr=0.1)
    before = q[0].weight.detach().clone()
    q.train()(torch.tensor([2, 5])).sum().backward()
    optimizer.step()
    moved = (q[0].weight != before).any(dim=1).nonzero().flatten()
    assert moved.tolist() == [2, 5]
