"""``import linger``: what it loads, that every public name is there, that tracing needs no further import."""

import ast
import operator
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import linger
from linger import _C, ops  # noqa: F401  the operators

ROOT = Path(linger.__file__).parent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_the_native_library_and_little_else():
    loaded = run(
        "import sys, linger; print(*(m for m in sys.modules if m.startswith('linger') or m == 'onnx'))"
    ).split()
    assert set(loaded) == {"linger", "linger._C", "linger._fakes"}


def test_every_file_of_nn_is_loaded_with_it():
    """A family registers its spellings, writers and readers when its file is loaded: a forgotten one is an island."""
    loaded = run("import sys, linger.nn; print(*sys.modules)").split()
    files = {f.relative_to(ROOT.parent).with_suffix("") for f in (ROOT / "nn").rglob("*.py") if f.stem != "__init__"}
    forgotten = {".".join(f.parts) for f in files} - set(loaded)
    assert forgotten == set(), "name them in the __init__.py of their folder"


@pytest.mark.parametrize("name", linger.__all__)
def test_every_public_name_is_there(name):
    assert getattr(linger, name) is not None


def test_dir_and_help_are_a_page():
    """The names of older generations are there, but not in the way; help prints one page, not that of every name."""
    names = dir(linger)
    assert {"constrain", "init", "calibration", "save", "load", "check", "export", "nn", "onnx", "settings"} <= set(
        names
    )
    assert len(names) <= 90 and all(hasattr(linger, name) for name in names)
    assert not {"iqAddLayer", "NormalizeConv2d", "SetIQTensorAdd"} & set(names)
    text = pydoc.render_doc(linger, renderer=pydoc.plaintext)
    assert len(text.splitlines()) <= 70
    for name in ("constrain", "init", "calibration", "summary", "save", "load", "check", "export", "OnnxRunner"):
        assert name in text
    assert run("from linger import *; print(callable(iqAddLayer), callable(init))").split() == ["True", "True"]


def test_the_page_names_what_is_there():
    for line in linger.__doc__.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            for name in line[4:26].replace(",", "").split():
                assert operator.attrgetter(name)(linger) is not None


def test_public_names_stand_in_the_typed_face():
    tree = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            typed |= {alias.asname: node.module for alias in node.names}
    homes = dict.fromkeys(linger._PACKAGES) | linger._HOMES | {"__version__": "_C"}
    assert typed == homes
    assert set(linger.__all__) <= set(typed)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'linger' has no attribute 'intt'"):
        linger.intt  # noqa: B018
    with pytest.raises(ImportError):
        from linger import intt  # noqa: F401


def test_every_operator_can_be_traced():
    operators = {op for op in torch._C._dispatch_get_registrations_for_dispatch_key("CPU") if op.startswith("linger::")}
    assert operators
    for op in operators:
        assert callable(ops.fake_kernel(op))
    with pytest.raises(NotImplementedError, match="linger::nothing has no fake kernel"):
        ops.fake_kernel("linger::nothing")


TRACE = """
import torch, linger
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    y = torch.ops.linger.dequantize(torch.zeros(2, 3, dtype=torch.int8), torch.ones(()))
    print(type(y).__name__, tuple(y.shape), y.dtype, y.device)
y = torch.ops.linger.dequantize(torch.zeros(2, 3, dtype=torch.int8, device="meta"), torch.ones(()))
print(y.device, tuple(y.shape))
f = torch.compile(lambda c, s: torch.ops.linger.dequantize(c, s) + 1, backend="aot_eager", fullgraph=True)
print(f(torch.ones(3, dtype=torch.int8), torch.ones(())).tolist())
"""


def test_tracing_needs_no_other_import():
    assert run(TRACE).splitlines() == ["FakeTensor (2, 3) torch.float32 cpu", "meta (2, 3)", "[2.0, 2.0, 2.0]"]
