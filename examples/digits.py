"""Handwritten digits: from float training to the chip's integers.

    python examples/digits.py [--platform arcs|venusA|venus|mars] [--qat-method MOM|TQT] [--device cuda]
    torchrun --nproc-per-node 2 examples/digits.py --ddp [--device cuda]      # several processes

Trains a small residual network on the 1797 digits that ship with scikit-learn, first in float, then constrained, then
quantized; exports it to ONNX and runs the exported file. The last two lines of the table are the same integers.
"""

import argparse
import logging
import os
import re
import tempfile
from functools import partialmethod
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import linger


class Model(nn.Module):
    """Three Conv+BN+ReLU with a residual add, two poolings and a linear layer: 8x8 pixels in, ten scores out."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.max_pool = nn.MaxPool2d(2)
        self.avg_pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = x + self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(self.max_pool(x))))
        x = self.avg_pool(x)
        return self.fc(x.view(x.size(0), -1))


def load_data(device="cpu"):
    """Images in [-1, 1], three quarters to train on, one quarter held out."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32, device=device).unsqueeze(1) / 8 - 1
    labels = torch.tensor(digits.target, device=device)
    train, test = train_test_split(range(len(labels)), test_size=0.25, random_state=0, stratify=digits.target)
    return (images[train], labels[train]), (images[test], labels[test])


def train(model, data, epochs, lr, title):
    images, labels = data
    if dist.is_initialized():  # every process has its part of the data, all have the mean of their gradients
        model = DistributedDataParallel(model)
        rank, processes = dist.get_rank(), dist.get_world_size()
        images, labels = (part[rank::processes][: len(part) // processes] for part in data)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    progress = tqdm(range(epochs), desc=f"{title:12}", unit="epoch", ncols=90)
    for _ in progress:
        for batch in torch.randperm(len(labels)).split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            linger.sync_statistics(model)  # several processes: ranges of the whole batch
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}")


def predict(model, images):
    model.eval()
    with torch.no_grad():
        return model(images)


def edit(config_file, **changes):
    """What you would do in an editor: give keys of config.yaml another value."""
    text = config_file.read_text()
    for key, value in changes.items():
        text = re.sub(rf"(?m)^(\s*{key}:) *[^\s#]+", rf"\1 {value}", text)
    config_file.write_text(text)


def main(platform="venusA", qat_method="MOM", epochs=(20, 8, 8), folder=None, device="cpu"):
    """Runs all stages; returns the images each stage gets wrong, the differing integers and the file."""
    folder = Path(folder or tempfile.mkdtemp(prefix="digits-"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    training, (images, labels) = load_data(device)
    wrong = {}

    def count(stage, scores):
        wrong[stage] = int((scores.argmax(1) != labels).sum())

    # An ordinary float model
    model = Model().to(device)
    train(model, training, epochs[0], 1e-2, "float")
    count("float", predict(model, images))
    torch.save(model.state_dict(), folder / "float.pt")

    # Stage 1: float training under constraints
    config_file = folder / "config.yaml"
    linger.config_save_to_yaml(str(config_file))
    edit(config_file, platform=platform, qat_method=qat_method)
    model = linger.constrain(model, config_file=str(config_file))
    train(model, training, epochs[1], 2e-3, "constrained")
    count("constrained", predict(model, images))
    torch.save(model.state_dict(), folder / "constrained.pt")

    # Stage 2: quantization-aware training
    model = Model().to(device)
    model = linger.init(model, config_file=str(config_file))
    model.load_state_dict(torch.load(folder / "constrained.pt"))
    with linger.calibration():
        model(training[0][:256])
    train(model, training, epochs[2], 5e-4, "quantized")
    scores = predict(model, images)
    count("quantized (eval)", scores)

    # Export, and run the exported file
    model_file = folder / "digits.onnx"
    with torch.no_grad():
        linger.onnx.export(
            model,
            images[:1],
            str(model_file),
            opset_version=12,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )
    runner = linger.onnx.OnnxRunner(str(model_file))
    pixels = images.cpu()
    count("exported (runner)", torch.from_numpy(runner.run(pixels)["output"]).to(device))
    integers = torch.from_numpy(runner.run(pixels, integers=True)["output"])
    differing = int((integers != (scores * model.fc.output_quantizer.scale).cpu()).sum())
    return {
        "wrong": wrong,
        "images": len(labels),
        "integers": integers.numel(),
        "differing": differing,
        "file": model_file,
        "size": model_file.stat().st_size,
        "float size": (folder / "float.pt").stat().st_size,
    }


def show(result, title):
    table = Table(title=title)
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column(f"wrong of {result['images']}", justify="right")
    for stage, wrong in result["wrong"].items():
        table.add_row(stage, f"{1 - wrong / result['images']:.2%}", str(wrong))
    table.add_section()
    table.add_row("differing integers, eval / runner", "", f"{result['differing']} of {result['integers']}")
    table.add_row(
        "file size, float / exported", "", f"{result['float size'] / 1024:.1f} / {result['size'] / 1024:.1f} KiB"
    )
    Console().print(table)


def join(device):
    """Become one of the processes that torchrun has started; returns this one's number and device."""
    cuda = device.startswith("cuda")
    dist.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if dist.get_rank():  # one of them speaks
        tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
        logging.getLogger("linger").setLevel(logging.ERROR)
    return dist.get_rank(), device


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=["arcs", "venusA", "venus", "mars"], default="venusA")
    parser.add_argument("--qat-method", choices=["MOM", "TQT"], default="MOM")
    parser.add_argument("--folder", help="where config, checkpoints and the ONNX file go (default: a temporary folder)")
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, cuda, cuda:1 ...")
    parser.add_argument("--epochs", type=int, nargs=3, default=(20, 8, 8), help="of the three stages")
    parser.add_argument("--ddp", action="store_true", help="one of the processes that torchrun has started")
    options = parser.parse_args()
    rank, device = join(options.device) if options.ddp else (0, options.device)
    folder = options.folder if rank == 0 else None  # the others write the same, for themselves
    result = main(options.platform, options.qat_method, options.epochs, folder, device)
    if rank == 0:
        show(result, f"Handwritten digits on {options.platform}, {options.qat_method}")
        print(f"exported: {result['file']}")
    if options.ddp:
        dist.destroy_process_group()
