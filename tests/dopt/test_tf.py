"""The TensorFlow form, where TensorFlow is installed: the cases of ``graph_mode``, one process for each mode of control flow."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "graph_mode"
LIBRARY = ROOT / "dopt" / "dopt_tf" / "_ops.so"
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed; `make test-tf` does that"
)


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **env}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=900, env=env)


@needs_tensorflow
@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_the_cases_pass(mode: str) -> None:
    settings = ["--import-mode=importlib", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings="]
    where = ["-o", "python_files=case_*.py", "--confcutdir", CASES, f"--rootdir={ROOT}", CASES]
    result = run(sys.executable, "-m", "pytest", *settings, *where, DOPT_TEST_MODE=mode)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 36 and "skipped" not in result.stdout


@needs_tensorflow
def test_the_import_needs_no_torch() -> None:
    script = """
import sys
sys.modules["torch"] = sys.modules["linger"] = None  # importing them raises
import dopt.dopt_tf.opt_main
from dopt.dopt_tf import native
assert native.lib is not None
"""
    result = run(sys.executable, "-c", script)
    assert result.returncode == 0, result.stderr


@needs_tensorflow
def test_the_declarations_are_those_of_tensorflow(tmp_path: Path) -> None:
    """tf_abi.h repeats what it uses of TensorFlow's headers: a file that includes both compiles."""
    include = Path(importlib.util.find_spec("tensorflow").origin).parent / "include"
    text = (ROOT / "csrc" / "tf" / "tf_abi.h").read_text()
    constants = re.findall(r"(TF_\w+) = (\d+)", text)
    ours = re.sub(r"typedef struct \w+ \w+;|enum \{[^}]*\};|#\w+[^\n]*", "", text)
    enums = {
        r"\bint dtype\b": "TF_DataType dtype",
        r"\bint code\b": "TF_Code code",
        r"\bint (?=TF_GetCode)": "TF_Code ",
    }
    for plain, named in enums.items():
        ours, n = re.subn(plain, named, ours)  # enumerations, which C passes as int
        assert n == 1
    lines = [f'#include "tensorflow/c/{name}.h"' for name in ("kernels", "ops", "tf_tensor")]
    lines += ['extern "C" {', ours, "}", *(f'static_assert({name} == {value}, "");' for name, value in constants)]
    source = tmp_path / "both.cc"
    source.write_text("\n".join(lines))
    result = run("c++", "-std=c++17", "-fsyntax-only", f"-I{include}", source)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(constants) >= 7


def test_the_library_is_plain_and_asks_for_nothing_newer_than_tensorflow_2_8() -> None:
    """2.8 cannot be installed for this Python: its functions are listed here (nm of its libtensorflow_framework.so.2)."""
    known = set((Path(__file__).parent / "tensorflow_2_8_symbols.txt").read_text().split())
    undefined = run("nm", "-D", "--undefined-only", LIBRARY).stdout
    used = set(re.findall(r" U (TF_\w+)", undefined))
    assert len(used) == 25 and used <= known
    assert not re.search(r"Py_|torch|std::|_ZN", undefined)
    defined = run("nm", "-D", "--defined-only", LIBRARY).stdout
    assert "lgr_" not in defined


@needs_tensorflow
def test_without_the_library_one_warning_and_the_same_calls(tmp_path: Path) -> None:
    script = f"""
import warnings, shutil, sys
shutil.copytree({str(ROOT / "dopt")!r}, {str(tmp_path / "dopt")!r})
open({str(tmp_path / "dopt" / "dopt_tf" / "_ops.so")!r}, "w").write("no library")
sys.path.insert(0, {str(tmp_path)!r})
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from dopt.dopt_tf import native
said = [str(w.message) for w in said if "dopt" in str(w.message)]
assert native.lib is None and not native.use_native()
assert len(said) == 1 and "cannot be loaded into TensorFlow" in said[0], said
"""
    result = run(sys.executable, "-c", script)
    assert result.returncode == 0, result.stderr[-3000:]
