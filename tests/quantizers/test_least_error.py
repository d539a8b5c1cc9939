"""The exponent of least squared error: weights in every step, activations and ``mse`` in calibration."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.onnx import OnnxRunner
from linger.quantizers import Quantizer

BOTH = "{w_strategy: LEAST_ERROR, a_strategy: LEAST_ERROR}"


def configured(tmp_path, quant=BOTH):
    (tmp_path / "c.yaml").write_text(f"quant_info: {quant}\nclamp_info: {{clamp_factor_value: null}}\n")
    return tmp_path / "c.yaml"


def error(x, e, bits, even):
    v = x.detach().numpy().astype(np.float64).reshape(-1) * 2.0**e
    code = np.rint(v) if even else np.floor((v.astype(np.float32) + np.float32(0.5)).astype(np.float64))
    code = np.clip(code, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    return float(((v - code) ** 2).sum() / 4.0**e)


def of_two(x, bits, even):
    """The rule once more: the coarsest exponent that holds the maximum, or the next finer one."""
    k = math.floor(math.log2(max(float(x.detach().abs().max()), 1e-6))) + 1
    coarse = min(max(bits - 1 - k, 0), 23)
    finer = coarse < 23 and error(x, coarse + 1, bits, even) < error(x, coarse, bits, even)
    return coarse + finer


def heavy(shape, seed=0, span=1.0):
    """A few large values above many small ones, as trained layers have them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return span * x * x.abs()


LAYERS = {
    "linear": (lambda: nn.Linear(20, 30), (1, 20)),
    "conv": (lambda: nn.Conv2d(4, 9, 3), (1, 4, 6, 6)),
    "conv 1d": (lambda: nn.Conv1d(4, 9, 3), (1, 4, 9)),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8), (1, 8, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 9, 3), (1, 4, 6, 6)),
    "lstm": (lambda: nn.LSTM(8, 6, batch_first=True), (1, 5, 8)),
    "gru": (lambda: nn.GRU(8, 6, batch_first=True), (1, 5, 8)),
    "embedding": (lambda: nn.Embedding(30, 12), None),
    "layer norm": (lambda: nn.LayerNorm(40), (1, 40)),
}


def run(q, shape):
    return q(torch.tensor([[0, 3, 7]]) if shape is None else torch.randn(shape))


def weights(q):
    """Quantizers of weights and what they quantize."""
    for m in q.modules():
        if hasattr(m, "limited_weights"):
            yield from ((quantizer, w) for w, quantizer in m.limited_weights())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("how", LAYERS)
def test_weights_take_the_cheaper_of_two_exponents_in_every_step(how, bits, tmp_path):
    layer, shape = LAYERS[how]
    layer = layer()
    finer = 0
    q = linger.init(layer, config_file=configured(tmp_path, f"{{w_strategy: LEAST_ERROR, weight_bits: {bits}}}"))
    for step in range(4):
        with torch.no_grad():
            for i, (_, w) in enumerate(weights(q)):
                w.copy_(heavy(w.shape, seed=17 * step + i, span=0.2 * 3.0**step))
                if step % 2:  # just above a power of two
                    w.mul_(1.002 * 2.0**step / w.abs().max())
        run(q.train(), shape)
        for quantizer, w in weights(q):
            wanted = of_two(w, quantizer.bits, even=True)
            assert float(quantizer.scale) == 2.0**wanted, (how, step)
            assert quantizer.running_data.item() == 2.0 ** (quantizer.bits - 1 - wanted)
            assert quantizer.n_batches.item() == step + 1
            k = math.floor(math.log2(float(w.detach().abs().max()))) + 1
            finer += wanted == quantizer.bits - k
    assert finer  # the rule has a choice here


@pytest.mark.parametrize("how", ["linear", "conv", "lstm", "transposed", "layer norm"])
def test_weights_before_any_data_and_frozen_ones(how, tmp_path):
    layer, shape = LAYERS[how]
    q = linger.init(layer(), config_file=configured(tmp_path))
    with torch.no_grad():
        for _, w in weights(q):
            w.copy_(heavy(w.shape))
    trained = copy.deepcopy(q)
    with linger.calibration(q):
        run(q.eval(), shape)
    for quantizer, w in weights(q):
        assert float(quantizer.scale) == 2.0 ** of_two(w, quantizer.bits, even=True) and quantizer.ready
    with torch.no_grad(), pytest.warns(UserWarning, match="seen no data"):
        run(trained.eval(), shape)
    assert not any(quantizer.ready for quantizer, _ in weights(trained))  # nothing stays
    with linger.freeze_statistics(q):
        with torch.no_grad():
            for _, w in weights(q):
                w.mul_(8.0)
        before = [float(quantizer.scale) for quantizer, _ in weights(q)]
        run(q.train(), shape)
        assert [float(quantizer.scale) for quantizer, _ in weights(q)] == before


@pytest.mark.parametrize("how", ["linear", "conv", "lstm", "gru", "embedding", "transposed", "layer norm"])
def test_training_evaluation_and_file_agree(how, tmp_path):
    layer, shape = LAYERS[how]
    torch.manual_seed(0)
    q = linger.init(nn.ModuleList([layer()])[0], config_file=configured(tmp_path))
    x = torch.tensor([[0, 3, 7]]) if shape is None else torch.randn(shape)
    optimizer = torch.optim.SGD(q.parameters(), lr=0.01)
    for _ in range(3):
        y = q.train()(x)
        (y if isinstance(y, torch.Tensor) else y[0]).sum().backward()
        optimizer.step()
    q.train()(x)
    wanted = q.eval()(x)
    wanted = wanted if isinstance(wanted, torch.Tensor) else wanted[0]
    linger.onnx.export(q, x, tmp_path / "m.onnx")
    got = torch.from_numpy(next(iter(OnnxRunner(tmp_path / "m.onnx").run(x.numpy()).values())))
    assert torch.equal(got, wanted)
    again = pickle.loads(pickle.dumps(q)).eval()(x)
    assert torch.equal(again if isinstance(again, torch.Tensor) else again[0], wanted)


DATA = {
    "gaussian": lambda seed: torch.randn(3000, generator=torch.Generator().manual_seed(seed)),
    "heavy": lambda seed: heavy(3000, seed),
    "uniform": lambda seed: torch.rand(3000, generator=torch.Generator().manual_seed(seed)) * 1.1,
    "small": lambda seed: heavy(3000, seed, 1e-4),
    "large": lambda seed: heavy(3000, seed, 500.0),
    "one outlier": lambda seed: torch.cat([torch.full((20000,), 0.3), torch.tensor([1.5])]),
}


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("role", ["activation", "weight"])
@pytest.mark.parametrize("how", DATA)
def test_calibration_finds_the_cheapest_exponent_over_all_batches(how, role, method):
    bits = 8
    batches, even = [DATA[how](seed) for seed in range(3)], role == "weight"
    total, costs = torch.cat(batches), [sum(error(b, e, bits, even) for b in batches) for e in range(24)]
    mse = Quantizer(bits, method=method, role=role, calibrate="mse")
    two = Quantizer(bits, method=method, role=role, calibrate="top_10", strategy="LEAST_ERROR")
    with linger.calibration():
        for b in batches:
            mse.observe_calibration(b)
            two.observe_calibration(b)
    assert float(mse.scale) == 2.0 ** int(np.argmin(costs))
    assert float(two.scale) == 2.0 ** of_two(total, bits, even)
    assert mse.n_batches.item() == two.n_batches.item() == 3
    if method == "TQT":
        assert two.learning_data.item() == bits - 1 - math.log2(float(two.scale))


@pytest.mark.parametrize("calibrate", ["mse", "abs_max", "top_10"])
@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_zeros_nan_and_wide_codes(calibrate, method):
    def scale(x, bits=8):
        quantizer = Quantizer(bits, method=method, calibrate=calibrate, strategy="LEAST_ERROR")
        with linger.calibration():
            quantizer.observe_calibration(x)
        return float(quantizer.scale), quantizer

    assert scale(torch.zeros(10))[0] == 2.0**23
    assert scale(torch.tensor([5.0, -3.0]), 32)[0] == 2.0**23
    assert scale(torch.tensor([5.3, -3.1]), 16)[0] == 2.0**12
    assert scale(torch.tensor([900.0, -3.0]))[0] == 1.0
    broken = scale(torch.tensor([1.0, math.nan]))[1]
    assert broken.n_skipped == 1 and not broken.ready


def test_activations_move_as_ranges_in_training():
    two, mean = (Quantizer(8, strategy=s) for s in ("LEAST_ERROR", "RANGE_MEAN"))
    for seed in range(4):
        for quantizer in (two, mean):
            quantizer.train()(heavy(500, seed))
    assert two.running_data.item() == mean.running_data.item() and float(two.scale) == float(mean.scale)


def test_methods_that_find_the_exponent_themselves_are_not_overruled():
    quantizer = Quantizer(8, calibrate="w_like", strategy="LEAST_ERROR")
    same = Quantizer(8, calibrate="w_like")
    with linger.calibration():
        quantizer.observe_calibration(heavy(500))
        same.observe_calibration(heavy(500))
    assert float(quantizer.scale) == float(same.scale)


def test_trained_thresholds_of_weights_start_there_and_train(tmp_path):
    quant = "{w_strategy: LEAST_ERROR, qat_method: TQT}"
    q, x = linger.init(nn.Linear(20, 30), config_file=configured(tmp_path, quant)), torch.randn(4, 20)
    with torch.no_grad():
        q.weight.copy_(heavy(q.weight.shape))
    with linger.calibration(q):
        q(x)
    t = q.weight_quantizer.learning_data
    assert float(q.weight_quantizer.scale) == 2.0 ** of_two(q.weight, 8, even=True)
    q.train()(x).square().sum().backward()
    assert t.grad.abs().item() > 0


def test_sections_choose_their_own(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "one:\n  name: ['0']\n  quant_info: {w_strategy: LEAST_ERROR, a_calibrate_name: mse}\n"
    )
    q = linger.init(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), config_file=tmp_path / "c.yaml")
    assert [m.weight_quantizer.strategy for m in q] == ["LEAST_ERROR", "RANGE_MEAN"]
    assert [m.output_quantizer.calibrate for m in q] == ["mse", "top_10"]
    with pytest.raises(ValueError, match="strategy must be one of RANGE_MEAN, LEAST_ERROR, got 'KLD'"):
        Quantizer(8, strategy="KLD")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # dynamo's own
def test_compiled_steps_move_the_same_state(tmp_path):
    torch.manual_seed(0)
    q = linger.init(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)), config_file=configured(tmp_path))
    other, x = copy.deepcopy(q), torch.randn(4, 20)
    compiled = torch.compile(other, backend="aot_eager")
    for _ in range(2):
        q.train()(x).sum().backward()
        compiled.train()(x).sum().backward()
    for (a, _), (b, _) in zip(weights(q), weights(other), strict=True):
        assert torch.equal(a.scale, b.scale) and torch.equal(a.n_batches, b.n_batches)


def convolution(i, o, stride=1, **how):
    return [nn.Conv2d(i, o, 3, stride, 1, bias=False, **how), nn.BatchNorm2d(o), nn.ReLU()]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Sequential(*convolution(3, 16)), nn.Sequential(*convolution(16, 16)[:2])
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(x + self.a(x)).mean((2, 3)))


NETS = {
    "plain": lambda: nn.Sequential(*convolution(3, 16, 2), *convolution(16, 32, 2), nn.Flatten(), nn.Linear(512, 10)),
    "residual": Residual,
    "depthwise": lambda: nn.Sequential(
        *convolution(3, 16, 2), *convolution(16, 16, groups=16), nn.Conv2d(16, 32, 1), nn.Flatten(), nn.Linear(2048, 10)
    ),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    ),
}


def test_four_small_networks_gain_after_calibration(tmp_path):
    """Signal to noise of calibrated networks, in dB: the rule of ranges, that of errors, and ``mse``."""

    def batch(n, generator):
        labels = torch.randint(0, 10, (n,), generator=generator)
        return centres[labels] + 0.7 * torch.randn(n, 3, 16, 16, generator=generator), labels

    centres = torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    gains = []
    for make in NETS.values():
        torch.manual_seed(0)
        m, generator = make(), torch.Generator().manual_seed(1)
        optimizer = torch.optim.Adam(m.parameters(), 2e-3)
        for _ in range(25):
            optimizer.zero_grad()
            x, labels = batch(16, generator)
            F.cross_entropy(m.train()(x), labels).backward()
            optimizer.step()
        x, data, found = batch(64, generator)[0], batch(64, generator)[0], []
        wanted = m.eval()(x).detach()
        for quant in ("{}", BOTH, "{a_calibrate_name: mse, w_calibrate_name: mse}"):
            q = linger.init(copy.deepcopy(m), config_file=configured(tmp_path, quant))
            with linger.calibration(q):
                q.eval()(data)
            noise = wanted - q(x).detach()
            found.append(float(10 * torch.log10(wanted.square().sum() / noise.square().sum())))
        assert found[1] > 25 and found[2] > 25, found
        gains.append(found[1] - found[0])
    assert min(gains) > 0 and sum(gains) / 4 > 5, gains
