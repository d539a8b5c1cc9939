"""The command ``linger``: what it prints, its JSON and its exit codes, on files that a newcomer has."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import linger
from linger.command_line import main
from linger.command_line.commands import COMMANDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A good file, a file with other weights, one with a float island, inputs, a checkpoint, a classic script."""
    path = tmp_path_factory.mktemp("files")
    x = torch.linspace(-1, 1, 40).reshape(1, 1, 5, 8)
    for name, change in (("a", lambda y: y), ("b", lambda y: y), ("island", torch.sin)):
        torch.manual_seed(ord(name[0]))

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Conv2d(1, 2, 3), nn.Linear(18, 3)

            def forward(self, x, change=change):
                return self.b(change(self.a(x)).flatten(2))

        model = linger.init(Net())
        with linger.calibration(model):
            model(x)
        linger.onnx.export(model, x, path / f"{name}.onnx", input_names=["x"], output_names=["y"])
        linger.save(model, path / "model.pt")
    np.save(path / "x.npy", x.numpy())
    np.savez(path / "x.npz", x=x.numpy())
    (path / "old.py").write_text("import linger\nnet = linger.normalize_layers(net)\n")
    (path / "good.yaml").write_text("platform: arcs\n")
    (path / "bad.yaml").write_text("platforms: arcs\n")
    return path


@pytest.fixture
def ask(folder, capsys, monkeypatch):
    """Run a command in the folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)

    def run(words):
        code = main(words.split())
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


pytestmark = pytest.mark.filterwarnings("ignore")

ANSWERS = [
    ("--version", 0, "linger "),
    ("check a.onnx", 0, "linger.check, venusA: 0 error(s)"),
    ("check island.onnx", 1, "float operator"),
    ("run a.onnx --input x.npy", 0, "y [1, 2, 3] float32"),
    ("run a.onnx --input x=x.npy --integers", 0, "y [1, 2, 3] int8"),
    ("run a.onnx x.npy --integers", 0, "y [1, 2, 3] int8"),
    ("run a.onnx --input x.npz --output y.npz", 0, "written to y.npz"),
    ("compare a.onnx a.onnx x.npy", 0, "y: 0 of 6 differ"),
    ("compare a.onnx b.onnx x=x.npy", 1, "of 6 differ, by at most"),
    ("report a.onnx", 0, "multiply-accumulates"),
    ("report model.pt", 0, "a.weight  [2, 1, 3, 3] float32"),
    ("pack a.onnx", 0, "# none: its defaults do"),
    ("config", 0, "clamp_info:"),
    ("config good.yaml", 0, "good.yaml is right; it sets platform"),
    ("bench a.onnx --seconds 0.01 --threads 1", 0, "ms a run"),
    ("convert a.onnx s.onnx", 0, "written to s.onnx: standard"),
    ("convert a.onnx q.onnx --to qdq", 0, "written to q.onnx: qdq"),
    ("prove a.onnx x.npy --keep p.onnx", 0, "all 6 integers are the same"),
    ("migrate old.py", 0, "linger.constrain(model, config_file='config.yaml')"),
]


@pytest.mark.parametrize(("words", "code", "said"), ANSWERS, ids=[a[0] for a in ANSWERS])
def test_answers(ask, words, code, said):
    threads = torch.get_num_threads()
    try:
        got, out, err = ask(words)
    finally:
        torch.set_num_threads(threads)
    assert (got, err) == (code, "")
    assert said in out


@pytest.mark.parametrize("words", [words for words, code, _ in ANSWERS if words[0] != "-"], ids=str)
def test_json(ask, words):
    out = ask(f"{words} --json")[1]
    assert json.loads(out) is not None


REFUSALS = [
    ("checks a.onnx", "there is no command 'checks'; did you mean 'check'?"),
    ("check", "the following arguments are required: MODEL.onnx"),
    ("check a.onnx --platform venuss", "platform must be one of"),
    ("check none.onnx", "cannot read 'none.onnx'"),
    ("check x.npy", "not an ONNX model"),
    ("run a.onnx", "no input: write the .npy files behind the model"),
    ("check model.pt", "a checkpoint of torch.save, not an ONNX model"),
    ("run a.onnx --input none.npy", "cannot read 'none.npy'"),
    ("run a.onnx --input y=x.npy", "the graph inputs are ['x']; missing ['x'], unknown ['y']"),
    ("run a.onnx --input x.npy y=x.npy", "give every input a name (name=x.npy), or none"),
    ("run a.onnx --input x.npy --output none/y.npz", "there is no folder"),
    ("compare a.onnx b.onnx", "the following arguments are required"),
    ("report none.pt", "cannot read 'none.pt'"),
    ("config bad.yaml", "platforms"),
    ("config --write good.yaml", "good.yaml exists and is left as it is"),
    ("bench a.onnx --seconds 0", "--seconds must be above 0"),
    ("bench a.onnx --threads 0", "--threads must be at least 1"),
    ("migrate good.yaml", "no checkpoint"),
]


@pytest.mark.parametrize(("words", "said"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_refusals(ask, words, said):
    code, out, err = ask(words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_results_are_those_of_the_runner(ask, folder):
    ask("run a.onnx --input x.npy --output y.npz")
    wanted = linger.onnx.OnnxRunner(folder / "a.onnx").run(np.load(folder / "x.npy"))["y"]
    assert (np.load(folder / "y.npz")["y"] == wanted).all()


def test_template_can_be_written_and_read(ask, folder):
    assert ask("config --write fresh.yaml")[0] == 0
    assert ask("config fresh.yaml")[0] == 0
    assert ask("config --write fresh.yaml")[0] == 2


def test_every_command_is_in_the_help(ask):
    out = ask("")[1]
    assert all(command.name in out for command in COMMANDS)
    for command in COMMANDS:
        assert "exit codes" in ask(f"{command.name} --help")[1]


def test_as_a_module(folder):
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(linger.__file__))}
    words = [sys.executable, "-m", "linger", "check", "island.onnx"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 1
    assert "float operator" in done.stdout
