"""The examples in docstrings and pages run as they stand."""

import doctest
import importlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITH_EXAMPLES = sorted(p for folder in ("linger", "docs") for p in (HERE / folder).rglob("*.*")
                       if p.suffix in (".py", ".md") and ">>>" in p.read_text(encoding="utf-8"))  # fmt: skip


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda p: p.relative_to(HERE).as_posix())
def test_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if path.suffix == ".md":
        found = doctest.testfile(str(path), module_relative=False, optionflags=FLAGS)
    else:
        name = ".".join(path.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__")
        found = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert found.failed == 0
