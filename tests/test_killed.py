"""``kill -9`` in the middle of writing: the file that was there, or the new one, whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# One process prepares two models; for every moment a child of it writes the second over the first and is killed there.
DRIVER = """
import io, os, signal, sys, tempfile
import torch
from torch import nn
import linger, linger.files

kind, folder = sys.argv[1:]
path = os.path.join(folder, "file")
torch.set_num_threads(1)
x = torch.randn(1, 64)

def model(seed):
    torch.manual_seed(seed)
    made = linger.init(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)))
    made(x)
    return made.eval()

models = [model(0), model(1)]
configs = [linger.settings.loads(f"platform: {name}\\n") for name in ("arcs", "venus")]

def write(i):
    if kind == "export":
        linger.onnx.export(models[i], x, path)
    elif kind == "save":
        linger.save(models[i], path)
    else:
        linger.settings.use(configs[i])
        linger.config_save_to_yaml(path, overwrite=True)

def content():
    with open(path, "rb") as file:
        return file.read()

write(1); new = content()
write(0); old = content()
assert old != new

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def killed_at(moment):
    def opened(handle, mode):
        file = io.FileIO(handle, "wb")
        whole = file.write
        def part(data):  # half of what comes, then the end
            whole(bytes(data)[: len(data) // 2])
            die()
        file.write = part
        return file
    if moment == "opened":
        os.fdopen = die
    elif moment == "half":
        os.fdopen = opened
    elif moment == "written":
        os.chmod = die
    elif moment == "renaming":
        os.replace = die
    else:
        replace = os.replace
        os.replace = lambda a, b: (replace(a, b), die())
    write(1)

for moment in ("opened", "half", "written", "renaming", "renamed"):
    child = os.fork()
    if child == 0:
        killed_at(moment)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
    assert content() == (new if moment == "renamed" else old), moment
    print(moment)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["export", "save", "config"])
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(kind, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", DRIVER, kind, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["opened", "half", "written", "renaming", "renamed"]
