"""Figures of one GPU, as ratios in one run: fake-quantization to a copy, training steps to float ones, eager and captured."""

import argparse
import copy
import json
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

import linger

Step = Callable[[], object]


def ms(run: Step, repeats: int = 30) -> float:
    """Median of events, warmed up."""
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def block(c: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Last(nn.Module):
    """The output of a recurrent layer alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions 32x32": (
        lambda: nn.Sequential(block(3, 16, 1), block(16, 32, 2), block(32, 64, 2)),
        (128, 3, 32, 32),
    ),
    "convolutions 56x56": (lambda: nn.Sequential(block(64, 128, 1), block(128, 256, 2)), (64, 64, 56, 56)),
    "linear 1024": (lambda: nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)), (512, 1024)),
    "LSTM 2 x 256": (lambda: Last(nn.LSTM(40, 256, 2)), (50, 32, 40)),
    "GRU 2 x 256": (lambda: Last(nn.GRU(40, 256, 2)), (50, 32, 40)),
}


def step_of(model: nn.Module, x: Tensor) -> Step:
    def step() -> None:
        model(x).float().square().mean().backward()

    return step


def captured(step: Step, model: nn.Module) -> Step:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def peak_of(step: Step) -> int:
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def row(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, float]:
    x = torch.randn(shape, device="cuda")
    float_model = make().cuda()
    quantized = linger.init(copy.deepcopy(float_model))
    plain, ours = step_of(float_model, x), step_of(quantized, x)
    result = {}
    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        result["step / float, TF32 " + ("on" if tf32 else "off")] = ms(ours) / ms(plain)
    result["memory / float"] = peak_of(ours) / peak_of(plain)
    result["captured / float"] = ms(captured(ours, quantized)) / ms(plain)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="bench.json")
    out = parser.parse_args().out
    rows: dict[str, dict[str, float]] = {}
    x = torch.randn(1 << 24, device="cuda")
    y = torch.empty_like(x)
    kinds = (torch.float32, torch.uint8, torch.float32, torch.int64, torch.int64)
    state = [torch.zeros((), dtype=kind, device="cuda") for kind in kinds]
    settings = 8 | 1 << 8 | 1 << 16
    fake = ms(lambda: torch.ops.linger.quantize_mask(x, *state, settings))
    rows["fake-quant 16 Mi"] = {"/ copy": fake / ms(lambda: y.copy_(x))}
    for name, (make, shape) in MODELS.items():
        rows[name] = row(make, shape)
    for name, figures in rows.items():
        print(f"{name:20s}", {key: round(value, 3) for key, value in figures.items()})
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"gpu": torch.cuda.get_device_name(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
