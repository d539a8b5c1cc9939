"""The same bits for 1, 2 and 8 threads, forward and backward, and one thread per DataLoader worker."""

import multiprocessing

import pytest
import torch
from torch import nn

import linger
from linger import ops
from linger.quantizers import Quantizer
from linger.runtime import info
from tests.nn.zoo import ZOO, batch, tensors

THREADS = (1, 2, 8)


def _for_each_number_of_threads(run):
    before = torch.get_num_threads()
    try:
        results = []
        for n in THREADS:
            torch.set_num_threads(n)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    return results


def _assert_same(results):
    for other in results[1:]:
        assert len(other) == len(results[0])
        for i, (a, b) in enumerate(zip(results[0], other, strict=True)):
            assert torch.equal(a, b), f"result {i}"


@pytest.mark.parametrize("name", list(ZOO))
def test_forward_and_statistics(name):
    def run():
        torch.manual_seed(0)
        model = linger.init(ZOO[name]())
        outputs = [y for i in range(2) for y in tensors(model(*batch(ZOO[name], n=9, seed=i)))]
        return outputs + list(model.state_dict().values())

    _assert_same(_for_each_number_of_threads(run))


class _Model(nn.Module):
    """One operator behind quantized operands: a layer, or a function of user code."""

    def __init__(self, operator, shapes):
        super().__init__()
        if isinstance(operator, nn.Module):
            self.layer = operator
            with torch.no_grad():
                for p in operator.parameters():
                    p.copy_(_grid(p.shape, 3) / 4)
        self.operator = operator
        self.entries = nn.ModuleList(nn.Linear(s[-1], s[-1], bias=False) for s in shapes if s != "indices")
        for entry in self.entries:
            nn.init.eye_(entry.weight)

    def forward(self, *xs):
        return self.operator(*(entry(x) for entry, x in zip(self.entries, xs, strict=True)) if self.entries else xs)


IMAGES, ROWS = (16, 16, 24, 24), (96, 40, 64)
OPERATORS = {
    "conv": (lambda: nn.Conv2d(16, 24, 3, padding=1), [IMAGES]),
    "conv depthwise": (lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16), [IMAGES]),
    "conv 1d": (lambda: nn.Conv1d(40, 24, 5, stride=2), [ROWS]),
    "conv transposed": (lambda: nn.ConvTranspose2d(16, 8, 2, stride=2), [IMAGES]),
    "linear": (lambda: nn.Linear(64, 96), [ROWS]),
    "add": (lambda: torch.add, [IMAGES, IMAGES]),
    "add broadcast": (lambda: torch.add, [IMAGES, (1, 16, 1, 1)]),
    "sub": (lambda: torch.sub, [IMAGES, IMAGES]),
    "mul": (lambda: torch.mul, [IMAGES, IMAGES]),
    "mul gate": (lambda: torch.mul, [IMAGES, (16, 16, 1, 1)]),
    "cat": (lambda: lambda *xs: torch.cat(xs, 1), [IMAGES, (16, 8, 24, 24)]),
    "bmm": (lambda: torch.bmm, [(96, 40, 64), (96, 64, 24)]),
    "relu": (lambda: torch.relu, [IMAGES]),
    "max pool": (lambda: nn.MaxPool2d(2), [IMAGES]),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1), [IMAGES]),
    "global pool": (lambda: lambda x: x.mean((2, 3)), [IMAGES]),
    "batch norm": (lambda: nn.BatchNorm2d(16), [IMAGES]),
    "conv and batch norm": (lambda: nn.Sequential(nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24)), [IMAGES]),
    "embedding": (lambda: nn.Embedding(50, 64), ["indices"]),
    "layer norm": (lambda: nn.LayerNorm(64), [ROWS]),
    "sigmoid": (lambda: nn.Sigmoid(), [IMAGES]),
    "softmax": (lambda: nn.Softmax(-1), [ROWS]),
    "glu": (lambda: nn.GLU(-1), [ROWS]),
}


SUMS_OF_TORCH = {"conv and batch norm": ("layer.0.weight", "layer.0.bias"), "layer norm": ("layer.weight",)}


def _grid(shape, seed):
    """Few-bit values, so that float32 sums are exact and no order of adding them shows."""
    generator = torch.Generator().manual_seed(seed)
    if shape == "indices":
        return torch.randint(0, 50, (64, 200), generator=generator)
    return torch.randint(-7, 8, shape, generator=generator) / 8


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_backward_of_every_operator(name, method, tmp_path):
    make, shapes = OPERATORS[name]
    path = tmp_path / "config.yaml"
    path.write_text(f"quant_info: {{qat_method: {method}}}\nclamp_info: {{clamp_activation_value: 2}}\n")
    linger.settings.use(linger.settings.load(str(path)))

    def run():
        torch.manual_seed(0)
        model = _Model(make(), shapes)
        linger.init(model, fold_bn="step")
        xs = [_grid(s, i) for i, s in enumerate(shapes)]
        leaves = [x.requires_grad_() for x in xs if x.is_floating_point()]
        y = tensors(model(*xs))[0]
        y.backward(_grid(y.shape, 9))
        assert info(y) is not None and any(
            t.grad.abs().sum() > 0 for t in (*leaves, *model.parameters()) if t.grad is not None
        )
        named = {"output": y.detach()} | {f"input {i}": t.grad for i, t in enumerate(leaves)}
        ours = {n: p.grad for n, p in model.named_parameters() if p.grad is not None and not n.startswith("entries")}
        return named | {n: g for n, g in ours.items() if n not in SUMS_OF_TORCH.get(name, ())}

    first, *others = _for_each_number_of_threads(run)
    for other in others:
        assert first.keys() == other.keys()
        assert [n for n in first if not torch.equal(first[n], other[n])] == []


def test_backward_of_the_fold():
    def run():
        torch.manual_seed(0)
        w, rest = torch.randn(256, 64, 3, 3), [torch.randn(256) for _ in range(3)]
        leaves = [t.requires_grad_() for t in (w, *rest, torch.randn(256), torch.rand(256) + 0.5)]
        folded = ops.fold_bn(*leaves, 1e-5, clamp_factor=2.0)
        torch.autograd.backward(folded, [torch.randn_like(t) for t in folded])
        return [*folded, *(t.grad for t in leaves)]

    _assert_same(_for_each_number_of_threads(run))


def test_backward_of_a_quantizer():
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))

    def run():
        quantizer, leaf = Quantizer(8, method="TQT"), x.clone().requires_grad_()
        quantizer(leaf).value.square().sum().backward()
        return [leaf.grad, quantizer.learning_data.grad]

    _assert_same(_for_each_number_of_threads(run))


# ---- workers of a DataLoader


def _process_threads():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


class _Features(torch.utils.data.Dataset):
    """Runs an initialised model in the worker and reports how many threads that took."""

    def __init__(self, model, x):
        self.model, self.x = model, x

    def __len__(self):
        return 2

    def __getitem__(self, i):
        with torch.no_grad():
            y = self.model(self.x + i)
        return y, torch.tensor([torch.get_num_threads(), _process_threads()])


def _features(context, threads=0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(16 * 28 * 28, 10))
    model, x = linger.init(net), torch.randn(16, 3, 32, 32)
    model(x)
    model.eval()
    data = _Features(model, x)
    want = [data[i][0] for i in range(2)]
    setup = None if not threads else _Setup(threads)
    loader = torch.utils.data.DataLoader(
        data, num_workers=1, batch_size=None, multiprocessing_context=context, worker_init_fn=setup
    )
    got = [(y.clone(), t.tolist()) for y, t in loader]
    assert all(torch.equal(a, b) for a, (b, _) in zip(want, got, strict=True))
    return [t for _, t in got]


class _Setup:
    """What a user writes who gives each worker several threads."""

    def __init__(self, threads):
        self.threads = threads

    def __call__(self, worker):
        torch.set_num_threads(self.threads)


LINUX = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="counts threads in /proc")
FEW = 4  # the worker, the queue's feeder, and at most two more of Python's


@LINUX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_in_a_worker_takes_one_thread():
    assert all(torch_threads == 1 and process <= FEW for torch_threads, process in _features("fork"))


@LINUX
@pytest.mark.slow
def test_a_model_in_a_spawned_worker_takes_the_threads_it_is_given():
    for torch_threads, process in _features("spawn", threads=3):
        assert torch_threads == 3 and process <= FEW + 2 * 3


@LINUX
def test_kernels_keep_to_the_number_of_threads():
    """Blocks are counted by torch's own setting, not by the processors."""
    import subprocess
    import sys

    code = """
import torch
torch.set_num_threads(1)
from linger import ops
from tests.runtime.test_threads import _process_threads
before = _process_threads()
ops.quantize_codes(torch.randn(1 << 22), 5, 8)
assert _process_threads() == before, (before, _process_threads())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
