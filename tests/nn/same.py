"""Training with frozen statistics, eval and the exported file must give the same integers."""

import numpy as np
import torch

import linger
from linger.onnx import OnnxRunner
from linger.runtime import info, islands_of

PLATFORMS = ("arcs", "mars", "venus", "venusA")


def assert_same_everywhere(model, batches, tmp_path, platform, method="MOM", more=""):
    """Train on `batches` (tuples of inputs of batch size 1), then compare; returns the op types of the file."""
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n{more}")
    model = linger.init(model, str(config), example_inputs=batches[0]).train()
    for inputs in batches:
        model.zero_grad()
        model(*inputs).pow(2).mean().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert islands_of(model) == []
    inputs = batches[-1]
    with torch.no_grad():
        want = model.eval()(*inputs)
        linger.freeze_statistics(model)
        assert torch.equal(model.train()(*inputs), want)
    linger.onnx.export(model.eval(), inputs, tmp_path / "m.onnx")
    runner = OnnxRunner(tmp_path / "m.onnx")
    (codes,) = runner.run(inputs, integers=True).values()
    assert np.array_equal(codes, (want * info(want).scale).round().to(torch.int64).numpy())
    (value,) = runner.run(inputs).values()
    assert np.array_equal(value, want.numpy())
    import onnx

    return [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
