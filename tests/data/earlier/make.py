"""How the archives beside this file were made: ``python tests/data/earlier/make.py``, with the product of commit 03d180f.

Each holds, for one chip and every network of ``nets.py``: ``<net>.pt`` (``linger.save``), ``<net>.onnx`` where the chip takes
it, and ``<net>.npz`` with inputs, values and integers of ``eval()``. Never made again: they show that later versions
compute the same.
"""

import io
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from nets import NETS, batch  # noqa: E402

import linger  # noqa: E402
from linger.runtime import info  # noqa: E402


def tensors(result):
    return [result] if isinstance(result, torch.Tensor) else [t for r in result for t in tensors(r)]


def made(cls, platform, method, folder):
    config = folder / "config.yaml"
    config.write_text(f"platform: {platform}\nquant_info:\n  qat_method: {method}\n")
    torch.manual_seed(0)
    model = linger.init(cls(), str(config), example_inputs=batch(cls, 0))
    with linger.calibration(model):
        model(*batch(cls, 1, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        sum(t.pow(2).mean() for t in tensors(model.train()(*batch(cls, 2 + step, 4)))).backward()
        optimizer.step()
    model.eval()
    inputs = batch(cls, 9)
    with torch.no_grad():
        outputs = tensors(model(*inputs))
    arrays = {f"input_{i}": t.numpy() for i, t in enumerate(inputs)}
    for i, t in enumerate(outputs):
        arrays[f"value_{i}"], arrays[f"scale_{i}"] = t.numpy(), np.float32(info(t).scale)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    linger.save(model, folder / "m.pt")
    files = {"pt": (folder / "m.pt").read_bytes(), "npz": buffer.getvalue()}
    try:
        linger.onnx.export(model, inputs, folder / "m.onnx")
        files["onnx"] = (folder / "m.onnx").read_bytes()
    except linger.onnx.ExportError as error:
        print(platform, cls.__name__, error)
    return files


if __name__ == "__main__":
    for i, platform in enumerate(("arcs", "mars", "venus", "venusA")):
        with zipfile.ZipFile(HERE / f"{platform}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for j, (name, cls) in enumerate(NETS.items()):
                with tempfile.TemporaryDirectory() as folder:
                    for kind, content in made(cls, platform, ("MOM", "TQT")[(i + j) % 2], Path(folder)).items():
                        archive.writestr(f"{name}.{kind}", content)
