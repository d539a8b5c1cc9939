"""The examples do what their last table says."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import linger

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore:.*venusA.*Linear")  # a fact about the chip that init reports


@pytest.fixture(autouse=True)
def configuration():
    """A loaded file becomes the current configuration; the next test wants the old one."""
    before = linger.settings.current()
    yield
    linger.settings.use(before)


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(wrong: dict, differing: int, size: int) -> None:
    assert list(wrong) == ["float", "constrained", "quantized (eval)", "exported (runner)"]
    assert differing == 0
    assert wrong["exported (runner)"] == wrong["quantized (eval)"] <= wrong["float"] + 3
    assert 5_000 < size < 30_000  # 8,480 weights of one byte


def run(tmp_path, capsys, platform, method, epochs):
    digits = load("digits")
    result = digits.main(platform, method, epochs=epochs, folder=tmp_path)
    check(result["wrong"], result["differing"], result["size"])
    digits.show(result, f"{platform}, {method}")
    out = capsys.readouterr().out
    assert f"0 of {result['integers']}" in out
    assert f"{1 - result['wrong']['float'] / result['images']:.2%}" in out
    return result


@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus", "mars"])
def test_digits_fast(tmp_path, capsys, platform, method):
    run(tmp_path, capsys, platform, method, (8, 3, 3))


@pytest.mark.parametrize("method", ["MOM", pytest.param("TQT", marks=pytest.mark.slow)])
def test_digits_in_two_processes(tmp_path, method):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *torchrun,
        EXAMPLES / "digits.py",
        "--ddp",
        "--qat-method",
        method,
        "--folder",
        tmp_path,
        "--epochs",
        "8",
        "3",
        "3",
    ]
    env = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exported: ") == 1 and re.search(r"0 of 4500", done.stdout)
    wrong = {name: int(n) for name, n in re.findall(r"│ (\w[\w ()]+?) +│ +[\d.]+% │ +(\d+) │", done.stdout)}
    check(wrong, 0, (tmp_path / "digits.onnx").stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus", "mars"])
def test_digits_as_shipped(tmp_path, capsys, platform, method):
    run(tmp_path, capsys, platform, method, (20, 8, 8))


def run_vowels(tmp_path, capsys, platform, method, epochs, streamed, margin):
    vowels = load("vowels")
    result = vowels.main(platform, method, epochs=epochs, folder=tmp_path, streamed=streamed)
    wrong = result["wrong"]
    assert list(wrong) == ["float", "constrained", "quantized (eval)", "exported (runner)", "streamed (runner)"]
    assert result["differing"] == 0
    assert wrong["exported (runner)"] == wrong["quantized (eval)"] <= wrong["float"] + margin
    assert 9_000 < result["size"] < 16_000  # 9,632 weights of one byte
    vowels.show(result, f"{platform}, {method}")
    assert f"0 of {result['integers']}" in capsys.readouterr().out


@pytest.mark.parametrize("platform", ["venusA", "venus"])
def test_vowels_fast(tmp_path, capsys, platform):
    run_vowels(tmp_path, capsys, platform, "MOM", (6, 1, 3), 8, 20)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MOM", "TQT"])
@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus", "mars"])
def test_vowels_as_shipped(tmp_path, capsys, platform, method):
    run_vowels(tmp_path, capsys, platform, method, (40, 10, 20), 370, 4)


def test_notebook_has_no_outputs_and_the_code_of_the_script():
    cells = json.loads((EXAMPLES / "digits.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    script = (EXAMPLES / "digits.py").read_text(encoding="utf-8")
    indented = "\n".join(line.strip() for line in script.splitlines())
    for cell in code:
        for line in cell.splitlines():
            known = line.strip() in indented or line.startswith(
                (
                    "platform =",
                    "qat_method =",
                    "device =",
                    "epochs =",
                    "result =",
                    "show(",
                    "linger.summary(",
                    "linger.diagnose(",
                )
            )
            assert known or line.startswith("folder = Path(tempfile"), line


@pytest.mark.filterwarnings("default")
def test_notebook_runs_from_a_fresh_kernel(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))  # a checkout need not be installed
    notebook = nbformat.read(EXAMPLES / "digits.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("epochs = (20, 8, 8)", "epochs = (8, 3, 3)")
    facts = "import json\nprint(json.dumps([wrong, differing, model_file.stat().st_size]))"
    notebook.cells.append(nbformat.v4.new_code_cell(facts))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    check(*json.loads(notebook.cells[-1].outputs[0].text))
    assert "differing integers" in str(notebook.cells[-2].outputs)


@pytest.mark.filterwarnings("default")
def test_the_notebook_about_accuracy_finds_and_mends_it(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    notebook = nbformat.read(EXAMPLES / "diagnose.ipynb", as_version=4)
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    facts = "import json\nprint(json.dumps([in_float, before, after, report.sqnr, again.sqnr]))"
    notebook.cells.append(nbformat.v4.new_code_cell(facts))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    in_float, before, after, worse, better = json.loads(notebook.cells[-1].outputs[0].text)
    assert before < in_float - 0.2 and after > in_float - 0.02
    assert better > worse + 20
    shown = [o.data for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "data" in o]
    assert any("The network, from input to output" in data.get("text/html", "") for data in shown)
