"""Handwritten digits with dopt: chosen layers of a PyTorch model in 8 bits, calibrated or trained.

    python examples/dopt_pytorch.py [--folder FOLDER]

Trains a small network on the 1797 digits that ship with scikit-learn in float, quantizes all its layers by the JSON file of
layer strategies, once by calibration and once by training, and writes quant_model.onnx and quant_params.json of both.
"""

import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "dopt_pytorch_py3"))  # as the users' document has it

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from dopt.dopt_torch.opt_main import (
    generate_config_file,
    generate_final_model,
    get_quant_loss,
    optimize_model,
    set_calibrate_state,
)


class Model(nn.Module):
    """Three Conv+BN+ReLU and a linear layer: 8x8 pixels in, ten scores out."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, stride=2, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.flatten(1))


def load_data():
    """Images in [0, 1], three quarters to train on, one quarter held out."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.25, random_state=0, stratify=digits.target)
    return (images[train], labels[train]), (images[test], labels[test])


def train(model, data, epochs, lr, title, quant_weight=0.0):
    images, labels = data
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    progress = tqdm(range(epochs), desc=f"{title:12}", unit="epoch", ncols=90)
    for _ in progress:
        for batch in torch.randperm(len(labels)).split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            if quant_weight:
                loss = loss + quant_weight * get_quant_loss(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}")


def predict(model, images):
    model.eval()
    with torch.no_grad():
        return model(images)


def run_onnx(file, images):
    """The scores of the written model, one image at a time as it was deployed."""
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(file))
    return torch.cat([torch.from_numpy(session.run(None, {"x": image[None].numpy()})[0]) for image in images])


def main(epochs=(20, 6), folder=None):
    """Runs all steps; returns the images each model gets wrong, their number and the files."""
    folder = Path(folder or tempfile.mkdtemp(prefix="dopt-"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    training, (images, labels) = load_data()
    wrong, files = {}, {}

    def count(stage, scores):
        wrong[stage] = int((scores.argmax(1) != labels).sum())

    # The float model
    float_model = Model()
    train(float_model, training, epochs[0], 1e-2, "float")
    count("float", predict(float_model, images))

    # The file of layer strategies: every layer in 8 bits
    config_file = folder / "config_gen.json"
    generate_config_file(float_model, "x:1,1,8,8", dst_path=config_file)
    content = json.loads(config_file.read_text())
    for layer in content["layer_strategy"].values():
        layer["quant_strategy"] = "Quant_INT8-8"
    config_file.write_text(json.dumps(content, indent=4))

    for how in ("calibrated", "trained"):
        quant_model = optimize_model(copy.deepcopy(float_model), config_file)
        if how == "calibrated":
            set_calibrate_state(quant_model, True)
            predict(quant_model, training[0][:256])
            set_calibrate_state(quant_model, False)
        else:
            train(quant_model, training, epochs[1], 5e-4, how, quant_weight=0.01)
        count(how, predict(quant_model, images))
        out = folder / how
        out.mkdir(exist_ok=True)
        torch.save(quant_model.state_dict(), out / "quant.pth")
        generate_final_model(Model(), config_file, pth_file=out / "quant.pth", output_dir=out)
        count(f"{how}, quant_model.onnx", run_onnx(out / "quant_model.onnx", images))
        files[how] = out
    return {"wrong": wrong, "images": len(labels), "files": files}


def show(result, title):
    table = Table(title=title)
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column(f"wrong of {result['images']}", justify="right")
    for stage, wrong in result["wrong"].items():
        table.add_row(stage, f"{1 - wrong / result['images']:.2%}", str(wrong))
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where all files go (default: a temporary folder)")
    result = main(folder=parser.parse_args().folder)
    show(result, "Handwritten digits, dopt for PyTorch")
    for how, folder in result["files"].items():
        print(f"{how}: {folder}")
