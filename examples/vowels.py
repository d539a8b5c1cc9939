"""Who is speaking? From float training to a stream of the chip's integers, frame by frame.

    python examples/vowels.py [--platform arcs|venusA|venus|mars] [--qat-method MOM|TQT]

Nine men say "ae" (Japanese Vowels: Kudo, Toyama and Shimbo, 1999): 12 cepstral coefficients per frame, 7 to 29 frames per
utterance, 270 utterances to train on and 370 to test. A causal convolution and an LSTM on packed sequences are trained in
float, then constrained, then quantized; the exported file hears whole utterances, a second file hears one frame at a time and
hands its state on. All of them give the same integers.

The recordings ship inside the Python package aeon (pip install --no-deps aeon suffices); nothing is downloaded.
"""

import argparse
import importlib.util
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from tqdm import tqdm

import linger

COEFFICIENTS, SPEAKERS, LONGEST, HIDDEN = 12, 9, 29, 32
KERNEL = 3


class Model(nn.Module):
    """Convolution over frames and those before, LSTM, and nine scores from its last state."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(COEFFICIENTS, HIDDEN, KERNEL, padding=KERNEL - 1)
        self.relu = nn.ReLU()
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.fc = nn.Linear(HIDDEN, SPEAKERS)

    def forward(self, frames, lengths=None, state=None):
        """Whole utterances (B, T, 12) with their lengths; or the last three frames of a stream, with the state so far."""
        x = self.relu(self.conv(frames.transpose(1, 2)))
        first, count = (0, frames.size(1)) if state is None else (KERNEL - 1, 1)  # outputs that see no frame to come
        x = x[:, :, first : first + count].transpose(1, 2)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, c) = self.lstm(x, state)
        scores = self.fc(h[-1])
        return scores if state is None else (scores, h, c)


def load_data(part):
    """Utterances (frames, 12) and their speakers, from the files of the package aeon, which need not be imported."""
    package = importlib.util.find_spec("aeon")
    if package is None:
        raise SystemExit("the recordings are part of the Python package aeon: pip install --no-deps aeon")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "JapaneseVowels"
    text = (folder / f"JapaneseVowels_{part}.ts").read_text(encoding="utf-8")
    utterances, speakers = [], []
    for line in text[text.lower().index("@data") :].splitlines()[1:]:
        *channels, speaker = line.strip().split(":")
        values = np.array([channel.split(",") for channel in channels], dtype=np.float32)
        utterances.append(torch.from_numpy(values.T.copy()))
        speakers.append(int(speaker) - 1)
    return utterances, torch.tensor(speakers)


def batch_of(utterances):
    """Utterances padded to the longest, and their lengths."""
    return pad_sequence(utterances, batch_first=True), [len(u) for u in utterances]


def train(model, data, epochs, lr, title):
    utterances, speakers = data
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    progress = tqdm(range(epochs), desc=f"{title:12}", unit="epoch", ncols=90)
    for _ in progress:
        for chosen in torch.randperm(len(speakers)).split(30):
            frames, lengths = batch_of([utterances[i] for i in chosen])
            loss = F.cross_entropy(model(frames + 0.1 * torch.randn_like(frames), lengths), speakers[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}")


def predict(model, utterances):
    model.eval()
    with torch.no_grad():
        return model(*batch_of(utterances))


def edit(config_file, **changes):
    """What you would do in an editor: give keys of config.yaml another value."""
    text = config_file.read_text()
    for key, value in changes.items():
        text = re.sub(rf"(?m)^(\s*{key}:) *[^\s#]+", rf"\1 {value}", text)
    config_file.write_text(text)


def export(model, folder):
    """Two files of one model: whole utterances with their length, and one frame with the state."""
    whole, stream = folder / "vowels.onnx", folder / "vowels_stream.onnx"
    linger.onnx.export(
        model,
        (torch.zeros(1, LONGEST, COEFFICIENTS), torch.tensor([LONGEST])),
        str(whole),
        input_names=["frames", "length"],
        output_names=["scores"],
    )
    state = torch.zeros(1, 1, HIDDEN), torch.zeros(1, 1, HIDDEN)
    linger.onnx.export(
        model,
        {"frames": torch.zeros(1, KERNEL, COEFFICIENTS), "state": state},
        str(stream),
        input_names=["frames", "h", "c"],
        output_names=["scores", "h_next", "c_next"],
    )
    return whole, stream


def hear(runner, utterance):
    """One whole utterance, padded; the file is told its length."""
    frames = F.pad(utterance, (0, 0, 0, LONGEST - len(utterance)))
    inputs = {"frames": frames.unsqueeze(0), "length": np.array([len(utterance)])}
    return torch.from_numpy(runner.run(inputs, integers=True)["scores"])


def hear_frame_by_frame(runner, utterance):
    """The same, one frame at a time; codes of the state go out of one call and into the next."""
    h, c = np.zeros((1, 1, HIDDEN), np.int8), np.zeros((1, 1, HIDDEN), np.int32)
    context = F.pad(utterance, (0, 0, KERNEL - 1, 0))  # silence before the first frame
    for t in range(len(utterance)):
        out = runner.run({"frames": context[None, t : t + KERNEL], "h": h, "c": c}, integers=True)
        h, c = out["h_next"], out["c_next"]
    return torch.from_numpy(out["scores"])


def main(platform="venusA", qat_method="MOM", epochs=(40, 10, 20), folder=None, streamed=370):
    """Runs all stages; returns the utterances each stage gets wrong, the differing integers and the files."""
    folder = Path(folder or tempfile.mkdtemp(prefix="vowels-"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    training, (utterances, speakers) = load_data("TRAIN"), load_data("TEST")
    wrong = {}

    def count(stage, scores):
        wrong[stage] = int((scores.argmax(1) != speakers[: len(scores)]).sum())

    # An ordinary float model
    model = Model()
    train(model, training, epochs[0], 1e-2, "float")
    count("float", predict(model, utterances))
    torch.save(model.state_dict(), folder / "float.pt")

    # Stage 1: float training under constraints
    config_file = folder / "config.yaml"
    linger.config_save_to_yaml(str(config_file))
    edit(config_file, platform=platform, qat_method=qat_method)
    model = linger.constrain(model, config_file=str(config_file))
    train(model, training, epochs[1], 2e-3, "constrained")
    count("constrained", predict(model, utterances))
    torch.save(model.state_dict(), folder / "constrained.pt")

    # Stage 2: quantization-aware training
    model = Model()
    model = linger.init(model, config_file=str(config_file), example_inputs=batch_of(training[0][:2]))
    model.load_state_dict(torch.load(folder / "constrained.pt"))
    with linger.calibration():
        model(*batch_of(training[0]))
    train(model, training, epochs[2], 2e-3, "quantized")
    scores = predict(model, utterances)
    count("quantized (eval)", scores)

    # Export, run the exported files
    files = export(model, folder)
    whole, stream = (linger.onnx.OnnxRunner(str(file)) for file in files)
    heard = torch.cat([hear(whole, u) for u in utterances])
    count("exported (runner)", heard)
    flowing = torch.cat(
        [hear_frame_by_frame(stream, u) for u in tqdm(utterances[:streamed], desc="streamed", ncols=90)]
    )
    count("streamed (runner)", flowing)
    codes = scores * model.fc.output_quantizer.scale
    differing = int((heard != codes).sum()) + int((flowing != codes[: len(flowing)]).sum())
    return {
        "wrong": wrong,
        "utterances": len(speakers),
        "integers": heard.numel() + flowing.numel(),
        "differing": differing,
        "files": files,
        "size": files[0].stat().st_size,
        "float size": (folder / "float.pt").stat().st_size,
    }


def show(result, title):
    table = Table(title=title)
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column(f"wrong of {result['utterances']}", justify="right")
    for stage, wrong in result["wrong"].items():
        table.add_row(stage, f"{1 - wrong / result['utterances']:.2%}", str(wrong))
    table.add_section()
    table.add_row("differing integers, eval / runner", "", f"{result['differing']} of {result['integers']}")
    table.add_row(
        "file size, float / exported", "", f"{result['float size'] / 1024:.1f} / {result['size'] / 1024:.1f} KiB"
    )
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=["arcs", "venusA", "venus", "mars"], default="venusA")
    parser.add_argument("--qat-method", choices=["MOM", "TQT"], default="MOM")
    parser.add_argument(
        "--folder", help="where config, checkpoints and the ONNX files go (default: a temporary folder)"
    )
    options = parser.parse_args()
    result = main(options.platform, options.qat_method, folder=options.folder)
    show(result, f"Japanese vowels on {options.platform}, {options.qat_method}")
    print(f"exported: {', '.join(map(str, result['files']))}")
