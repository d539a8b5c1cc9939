"""Whole models on a GPU: the CPU's integers and states, gradients within rounding, no host read, graphs, streams, AMP, moves."""

import copy

import pytest
import torch
from torch import Tensor, nn

import linger

from ..nn.test_no_host_read import CASES, Convolutional


def pair(kind: type[nn.Module], shape: tuple[int, ...], platform: str, method: str, tmp_path, gpu):
    """A model and its twin on the GPU, both met by one batch; the batch."""
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    torch.manual_seed(0)
    here = linger.init(kind(), config_file=str(config)).train()
    x = torch.randn(shape)
    here(x)
    return here, copy.deepcopy(here).to(gpu), x


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.detach().nan_to_num(7.25), b.detach().cpu().nan_to_num(7.25))


@pytest.mark.parametrize(("kind", "shape", "platform"), CASES)
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("tf32", [False, True])
def test_one_step_has_the_integers_and_the_state_of_the_cpu(kind, shape, platform, method, tf32, tmp_path, gpu):
    here, there, x = pair(kind, shape, platform, method, tmp_path, gpu)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    y, z = here(x), there(x.to(gpu))
    assert same(y, z)
    for (name, a), b in zip(here.named_buffers(), there.buffers(), strict=True):
        assert same(a, b), name
    y.square().sum().backward()
    z.square().sum().backward()
    for (name, a), b in zip(here.named_parameters(), there.parameters(), strict=True):
        if a.grad is None:
            assert b.grad is None, name
            continue
        error, size = (a.grad - b.grad.cpu()).norm(), a.grad.norm()
        assert error <= (3e-3 if tf32 else 1e-5) * size, name


@pytest.mark.parametrize(("kind", "shape", "platform"), CASES)
def test_a_training_step_waits_for_nothing(kind, shape, platform, tmp_path, gpu):
    _, there, x = pair(kind, shape, platform, "MOM", tmp_path, gpu)
    x = x.to(gpu)
    optimizer = torch.optim.SGD(there.parameters(), lr=1e-3)
    there(x).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there(x).sum().backward()
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_step_is_the_eager_one(tmp_path, gpu):
    _, eager, x = pair(Convolutional, (4, 3, 8, 8), "venusA", "MOM", tmp_path, gpu)
    x = x.to(gpu)
    captured = copy.deepcopy(eager)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            captured(x).sum().backward()
    torch.cuda.current_stream().wait_stream(side)
    captured.load_state_dict(eager.state_dict())
    graph = torch.cuda.CUDAGraph()
    captured.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        y = captured(x)
        y.sum().backward()
    captured.load_state_dict(eager.state_dict())
    graph.replay()
    assert same(eager(x).cpu(), y)


def test_the_current_stream_is_used(tmp_path, gpu):
    here, there, x = pair(Convolutional, (4, 3, 8, 8), "venusA", "MOM", tmp_path, gpu)
    with torch.cuda.stream(torch.cuda.Stream()):
        z = there(x.to(gpu))
        torch.cuda.current_stream().synchronize()
        assert same(here(x), z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_a_scaler(dtype, tmp_path, gpu):
    _, there, x = pair(Convolutional, (4, 3, 8, 8), "venusA", "MOM", tmp_path, gpu)
    scaler = torch.amp.GradScaler("cuda")
    optimizer = torch.optim.SGD(there.parameters(), lr=1e-3)
    with torch.autocast("cuda", dtype):
        loss = there(x.to(gpu)).float().sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.isfinite(p).all() for p in there.parameters())


def test_models_move_at_any_time(tmp_path, gpu):
    here, there, x = pair(Convolutional, (4, 3, 8, 8), "venusA", "MOM", tmp_path, gpu)
    there.load_state_dict(here.state_dict())
    here.eval(), there.eval()
    assert same(here(x), there(x.to(gpu)))
    there.cpu()
    assert same(here(x), there(x))


def test_mixed_devices_are_named(tmp_path, gpu):
    _, there, x = pair(Convolutional, (4, 3, 8, 8), "venusA", "MOM", tmp_path, gpu)
    with pytest.raises(RuntimeError, match=r"cpu.*cuda:0|cuda:0.*cpu"):
        there(x)


def test_a_file_from_the_gpu(tmp_path, gpu):
    here, there, x = pair(Convolutional, (4, 3, 8, 8), "venusA", "MOM", tmp_path, gpu)
    for model, name, batch in ((here, "cpu.onnx", x), (there, "gpu.onnx", x.to(gpu))):
        linger.onnx.export(model.eval(), batch[:1], str(tmp_path / name))
    assert (tmp_path / "cpu.onnx").read_bytes() == (tmp_path / "gpu.onnx").read_bytes()
