"""Two processes under DistributedDataParallel stay one model; what it could not synchronise is refused."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import linger
from linger.quantizers import Quantizer
from linger.runtime import info
from tests.runtime.models import Residual

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
METHODS = ("MOM", "TQT")
IMAGES = (4, 3, 8, 8)


def _use(method, folder):
    path = folder / f"{method}.yaml"
    path.write_text(f"quant_info:\n  qat_method: {method}\n")
    linger.settings.use(linger.settings.load(str(path)))


def _images(seed):
    return torch.randn(IMAGES, generator=torch.Generator().manual_seed(seed))


def _gather(t):
    parts = [torch.zeros_like(t) for _ in range(2)]
    dist.all_gather(parts, t.detach().clone())
    return parts


def _train(rank):
    """What one process of a user's script does; returns what must be one and the same everywhere."""
    torch.manual_seed(rank)  # DDP takes the parameters of the first process
    model = linger.init(Residual(), example_inputs=_images(0))
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), 0.05)
    for i in range(3):
        optimizer.zero_grad()
        y = ddp(_images(10 * i + rank))
        assert info(y) is not None
        y.square().sum().backward()
        optimizer.step()
    trained = [p for p in model.parameters() if p.requires_grad]
    ddp.eval()
    want = ddp(_images(99))  # also hands the first process's statistics to all
    return model, torch.cat([p.grad.flatten() for p in trained]), torch.cat([p.flatten() for p in trained]), want


def work(rank, folder, method, results):
    """One of the two processes."""
    torch.set_num_threads(1)
    _use(method, folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet_{method}", rank=rank, world_size=2)
    try:
        model, *same = _train(rank)
        for t in same:
            first, second = _gather(t)
            assert torch.equal(first, second)
        if rank == 0:
            torch.save({"state": model.state_dict(), "output": same[-1], "gradient": same[0]}, results)
        _refusals(method)
    finally:
        dist.destroy_process_group()


def _refusals(method):
    late = DistributedDataParallel(linger.init(Residual()))
    with pytest.raises(
        linger.UnsupportedError, match="`add` of 'Residual' was first met under DistributedDataParallel"
    ):
        late(_images(0))
    if method == "TQT":
        ready = DistributedDataParallel(linger.init(Residual(), example_inputs=_images(0)))
        with (
            pytest.raises(linger.UnsupportedError, match="calibrate the model before wrapping it"),
            linger.calibration(),
        ):
            ready(_images(0))


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_one_model(method, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    results = tmp_path / "results.pt"
    processes = [spawn.Process(target=work, args=(rank, tmp_path, method, results)) for rank in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(120)
    assert [p.exitcode for p in processes] == [0, 0]
    kept = torch.load(results, weights_only=True)
    _use(method, tmp_path)
    alone = linger.init(Residual())
    alone.load_state_dict(kept["state"])
    assert torch.equal(alone.eval()(_images(99)), kept["output"])  # the same integers without DDP
    assert kept["gradient"].abs().sum() > 0


# ---- thresholds that nothing uses


def test_thresholds_of_quantized_operands_rest(tmp_path):
    """DDP waits for the gradient of every parameter that wants one."""
    _use("TQT", tmp_path)
    model = linger.init(Residual(), example_inputs=_images(0))
    model(_images(0)).square().sum().backward()
    asleep = {n for n, m in model.named_modules() if isinstance(m, Quantizer) and m.resting}
    assert asleep == {
        "conv2.input_quantizer",
        "fc.input_quantizer",
        "_linger_qtensor_qadd_0.input_quantizer.0",
        "_linger_qtensor_qadd_0.input_quantizer.1",
    }
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


class _Samples(Residual):
    """Draws with dropout in evaluation too, and switches everything to training for it."""

    def forward(self, x):
        return super().forward(x) if self.train() else None


def test_thresholds_rest_by_use_and_not_by_what_was_warned_of(tmp_path):
    """A forward in training is warned of nothing, yet its operands arrive quantized."""
    _use("TQT", tmp_path)
    model = linger.init(_Samples(), example_inputs=_images(0))
    assert sum(m.resting for m in model.modules() if isinstance(m, Quantizer)) == 4


@pytest.mark.parametrize("how", ["calibrated", "loaded"])
def test_unused_thresholds_rest_after_a_calibration_and_after_loading(how, tmp_path):
    _use("TQT", tmp_path)
    model = linger.init(Residual())
    with linger.calibration():
        model(_images(0))
        model(_images(1))
    if how == "loaded":
        state = model.state_dict()
        model = linger.init(Residual())
        model.load_state_dict(state)
    model(_images(0)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert sum(m.resting for m in model.modules() if isinstance(m, Quantizer)) == 4


def test_a_threshold_that_a_calibration_shows_one_float_operand_trains(tmp_path):
    _use("TQT", tmp_path)
    model = linger.init(_Sometimes())
    with linger.calibration():
        for through in (True, False, True):
            model(torch.randn(4, 8), through=through)
    assert not model.b.input_quantizer.resting


class _Sometimes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, through=True):
        return self.b(self.a(x) if through else x)


def test_a_resting_threshold_trains_when_a_float_operand_comes(tmp_path):
    _use("TQT", tmp_path)
    x = torch.randn(4, 8)
    model = linger.init(_Sometimes(), example_inputs=x)
    assert model.b.input_quantizer.resting
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = model.b.input_quantizer.learning_data.clone()
    (100 * model(100 * x, through=False)).square().sum().backward()
    optimizer.step()
    assert not model.b.input_quantizer.resting
    assert not torch.equal(model.b.input_quantizer.learning_data, before)
