"""Several processes: statistics that agree, models that are spread over processes, one thread for each of them."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import linger
from linger.quantizers import Quantizer
from tests.runtime.models import Residual

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")
IMAGES = (4, 3, 8, 8)


def images(seed, rank=0):
    return torch.randn(IMAGES, generator=torch.Generator().manual_seed(seed)) * (
        rank + 1
    )  # of other ranges in each process


def largest(t):
    t = t.detach().clone()
    dist.all_reduce(t, dist.ReduceOp.MAX)
    return t


def gathered(t):
    parts = [torch.zeros_like(t) for _ in range(2)]
    dist.all_gather(parts, t.detach().clone())
    return parts


def activations(model):
    return [m for m in model.modules() if isinstance(m, Quantizer) and m.role == "activation"]


def alike(model):
    return all(torch.equal(*gathered(v)) for q in activations(model) for v in (*q.buffers(), *q.parameters()))


def statistics(rank, method):
    """After every step the moving maxima are those of the whole batch."""
    model = linger.init(Residual(), example_inputs=images(0))
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), 1e-3)
    linger.sync_statistics(ddp)  # nothing has been seen: nothing happens
    assert not any(q.ready for q in activations(model))
    for i in range(2):
        optimizer.zero_grad()
        ddp(images(i, rank)).square().sum().backward()
        optimizer.step()
        if method == "MOM":
            want = [largest(q.running_data) for q in activations(model)]
            linger.sync_statistics(ddp)
            assert [torch.equal(q.running_data, w) for q, w in zip(activations(model), want, strict=True)].count(
                False
            ) == 0
        else:
            linger.sync_statistics(ddp)
        assert alike(model)
    one = model.eval()(images(9))
    assert torch.equal(*gathered(one))


def calibrated(rank):
    """Ranges of all batches, after a calibration of different batches in each process."""
    torch.manual_seed(0)
    model = linger.init(Residual(), example_inputs=images(0))
    with linger.calibration(model, a_calibrate_name="abs_max"):
        model(images(5, rank))
    reach = [q.reach for q in activations(model)]
    linger.sync_statistics(model)
    assert alike(model)
    assert all(now >= before for now, before in zip([q.reach for q in activations(model)], reach, strict=True))
    assert rank == 1 or [q.reach for q in activations(model)] != reach
    other = linger.init(nn.Sequential(nn.Linear(2, 2), *[nn.ReLU(), nn.Linear(2, 2)] * rank))
    with pytest.raises(RuntimeError, match="the processes have models with 2 to 4 quantizers of activations"):
        linger.sync_statistics(other)


def spread(rank, folder):
    """FSDP2: every process holds a part; the integers are those of one process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    def trained(shard):
        torch.manual_seed(0)
        model = linger.init(Residual(), example_inputs=images(0))
        if shard:
            mesh = dist.init_device_mesh("cpu", (2,))
            for part in (model.conv1, model.fc, model):
                fully_shard(part, mesh=mesh)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        for i in range(2):
            optimizer.zero_grad()
            model(images(i)).square().sum().backward()
            optimizer.step()
        return model.eval()

    sharded, alone = trained(True), trained(False)
    x = images(9)
    assert torch.equal(sharded(x), alone(x))
    for call in (
        lambda: linger.save(sharded, folder / "m.pt"),
        lambda: linger.onnx.export(sharded, x[:1], folder / "m.onnx"),
    ):
        with pytest.raises(linger.UnsupportedError, match=r"is spread over several processes \(FSDP\): gather it with"):
            call()
    whole = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        again = linger.init(Residual(), example_inputs=images(0))
        again.load_state_dict(whole)
        assert torch.equal(again.eval()(x), alone(x))
        linger.onnx.export(again, x[:1], folder / "m.onnx")
    float_model = Residual()
    fully_shard(float_model, mesh=dist.init_device_mesh("cpu", (2,)))
    with pytest.raises(linger.UnsupportedError, match=r"init: .* convert the model before fully_shard"):
        linger.init(float_model)


def work(rank, folder, method):
    torch.set_num_threads(1)
    linger.settings.use(linger.settings.loads(f"quant_info: {{qat_method: {method}}}\n"))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet_{method}", rank=rank, world_size=2)
    try:
        statistics(rank, method)
        calibrated(rank)
        spread(rank, folder)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_two_processes_of_one_thread(method, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(rank, tmp_path, method)) for rank in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(120)
    assert [p.exitcode for p in processes] == [0, 0]


def test_with_one_process_nothing_happens():
    model = linger.init(nn.Sequential(nn.Linear(4, 2)))
    model(torch.ones(2, 4))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    linger.sync_statistics(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        linger.sync_statistics(3)


def test_one_thread_computes_what_several_do():
    """As a torchrun process runs: OMP_NUM_THREADS=1. Integers, statistics and gradients have the same bits."""

    def results(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(0)
            model = linger.init(Residual(), example_inputs=images(0))
            y = model(images(1))
            y.square().sum().backward()
            return [
                y,
                *(b for _, b in model.named_buffers()),
                *(p.grad for p in model.parameters() if p.grad is not None),
            ]
        finally:
            torch.set_num_threads(before)

    assert all(torch.equal(a, b) for a, b in zip(results(1), results(3), strict=True))
