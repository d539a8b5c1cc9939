"""What fuzzing has found, and what it starts from: every file is refused in one sentence, or read."""

import importlib.util
from pathlib import Path

import pytest
import torch

import linger

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "data" / "fuzz"
_spec = importlib.util.spec_from_file_location("fuzz_files", HERE / "files.py")
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)


@pytest.mark.parametrize("path", sorted((CORPUS / "yaml").iterdir()), ids=lambda path: path.stem)
def test_configurations(path):
    try:
        linger.settings.load(path)
    except linger.ConfigError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("[oc]*/*")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_files_that_were_found(path):
    assert files.RUN[path.parent.name](path.read_bytes()) in ("ran", "refused")


@pytest.mark.filterwarnings("ignore")
def test_the_mutator_meets_refusals_and_results():
    """A short run, with the same mutations every time."""
    chance = files.random.Random(3)
    before = linger.settings.current()
    try:
        known = files.made()
    finally:
        linger.settings.use(before)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for kind, run in files.RUN.items():
            assert run(known[kind][0]) == "ran"
            said = {run(files.mutated(known[kind][0], chance)) for _ in range(25)}
            assert said <= {"ran", "refused"} and "refused" in said
    finally:
        torch.set_num_threads(threads)
