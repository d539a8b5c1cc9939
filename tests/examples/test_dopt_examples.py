"""The examples of dopt: real digits stay as well recognised as in float."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def check(wrong: dict[str, int], images: int, model: str) -> None:
    """At most 1 percentage point below float when calibrated, 0.5 when trained; the written file within 0.2 points."""
    assert list(wrong) == ["float", "calibrated", f"calibrated, {model}", "trained", f"trained, {model}"]
    assert wrong["float"] <= 0.03 * images
    assert wrong["calibrated"] - wrong["float"] <= 0.01 * images
    assert wrong["trained"] - wrong["float"] <= 0.005 * images
    for how in ("calibrated", "trained"):
        assert abs(wrong[f"{how}, {model}"] - wrong[how]) <= 0.002 * images + 0.5  # to the next image


def test_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("example_dopt", EXAMPLES / "dopt_pytorch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.main(folder=tmp_path)
    check(result["wrong"], result["images"], "quant_model.onnx")
    module.show(result, "digits")
    assert f"{1 - result['wrong']['float'] / result['images']:.2%}" in capsys.readouterr().out
    for folder in result["files"].values():
        assert len(json.loads((folder / "quant_params.json").read_text())["layers"]) == 4


needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed; `make test-tf` does that"
)


@needs_tensorflow
def test_tensorflow(tmp_path: Path) -> None:
    script = f"""
import json, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import dopt_tensorflow
result = dopt_tensorflow.main(folder={str(tmp_path)!r})
dopt_tensorflow.show(result, "digits")
print(json.dumps([result["wrong"], result["images"]]))
"""
    env = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr[-3000:]
    check(*json.loads(result.stdout.splitlines()[-1]), "quant_model.pb")
