"""The configuration file: what is written, and every error with file, line and cure."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopt import config, params

LAYERS = {"conv1/Conv2D": "Conv2D", "block/0/Conv2D": "Conv2D", "fc/MatMul": "MatMul"}


def entry(strategy: object = "float", **more: object) -> dict[str, object]:
    return {"op_type": "Conv2D", "quant_strategy": strategy, **more}


def test_the_template_is_the_documents(folder: Path) -> None:
    config.write("c.json", {"conv1/Conv2D": "Conv2D"}, ["Conv2D", "MatMul"], input_shape="x:1,3,8,8")
    assert json.loads(Path("c.json").read_text()) == {
        "quant_strategy_for op 'Conv2D'": ["Quant_INT8-8"],
        "quant_strategy_for op 'MatMul'": ["Quant_INT8-8"],
        "input_shape": "x:1,3,8,8",
        "layer_strategy": {"conv1/Conv2D": {"op_type": "Conv2D", "quant_strategy": "float"}},
    }
    assert [p.name for p in folder.iterdir()] == ["c.json"]
    with pytest.raises(FileNotFoundError, match=r"none/c.json: the folder 'none' does not exist"):
        config.write("none/c.json", {}, [])


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from(config.STRATEGIES), max_size=5)
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, strategies: dict[str, str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    layers = dict.fromkeys(strategies, "Conv2D")
    config.write(path, layers, ["Conv2D"])
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, strategy in strategies.items():
        content["layer_strategy"][name]["quant_strategy"] = strategy
    path.write_text(json.dumps(content), encoding="utf-8")
    assert config.quantized(config.read(path, layers)) == [n for n, s in strategies.items() if s == config.INT8]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"conv1/Conv2d": entry()}, "layer 'conv1/Conv2d' is not a layer .* did you mean 'conv1/Conv2D'"),
        (
            {"conv1/Conv2D": "float"},
            "layer 'conv1/Conv2D': expected an object with op_type and quant_strategy, got 'float'",
        ),
        ({"fc/MatMul": entry()}, "layer 'fc/MatMul': op_type is 'Conv2D', the model's layer is 'MatMul'"),
        (
            {"conv1/Conv2D": entry("Quant_INT4-4")},
            "'conv1/Conv2D': quant_strategy 'Quant_INT4-4' is not one of 'float', 'Quant",
        ),
        ({"conv1/Conv2D": entry(["Quant_INT8-8"])}, r"quant_strategy \['Quant_INT8-8'\] is not one of"),
        ({"conv1/Conv2D": {"op_type": "Conv2D"}}, "quant_strategy None is not one of"),
    ],
)
def test_layers_that_the_model_does_not_have(folder: Path, layers: dict[str, object], message: str) -> None:
    Path("c.json").write_text(json.dumps({"layer_strategy": layers}))
    with pytest.raises(config.ConfigError, match=rf"^c\.json: .*{message}"):
        config.read("c.json", LAYERS)


def test_what_is_no_part_of_the_strategy_is_ignored(folder: Path) -> None:
    layer = entry("Quant_INT8-8") | {"//": "a comment"}
    text = json.dumps(
        {"quant_strategy_for op 'Conv2D'": 5, "params_version": 2, "layer_strategy": {"conv1/Conv2D": layer}}
    )
    Path("c.json").write_text(
        "\ufeff" + text.replace('"//": "a comment"', '"//": "a comment", "//": "another"'), "utf-8"
    )
    assert config.quantized(config.read("c.json", LAYERS)) == ["conv1/Conv2D"]


GOOD = """{
    "layer_strategy": {
        "conv1/Conv2D": {
            "op_type": "Conv2D",
            "quant_strategy": "float"
        }
    }
}"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"Conv2D",', '"Conv2D"\uff0c', r"line 4, column 32: full-width sign '\uff0c' \(U\+FF0C\); write ','"),
        ('"Conv2D",', '"Conv2D"\u3001', r"line 4, column 32: full-width sign '\u3001' \(U\+3001\); write ','"),
        ('"op_type":', '"op_type"\uff1a', r"line 4, column 22: full-width sign '\uff1a' \(U\+FF1A\); write ':'"),
        ('"op_type":', "\u201cop_type\u201d:", r"line 4, column 13: full-width sign '\u201c' \(U\+201C\); write '\"'"),
        ('"float"', "\u201cfloat\u201d", r"line 5, column 31: full-width sign '\u201c' \(U\+201C\); write '\"'"),
        (
            '": {\n        "conv',
            '": \uff5b\n        "conv',
            r"line 2, column 23: full-width sign '\uff5b' \(U\+FF5B\); write '{'",
        ),
        ('"float"\n', '"float",\n', r"line 5: a comma before '}', which JSON does not allow; remove it"),
        (
            '"float"\n        }',
            '"float"\n        },\n ...',
            r"line 7, column 2: '\.\.\.' stands for more layers in the document",
        ),
        ('"Conv2D",', '"Conv2D"', r"line 5, column 13: Expecting ',' delimiter"),
        ('"op_type"', "op_type", r"line 4, column 13: Expecting property name enclosed in double quotes"),
        (GOOD, "", r"line 1, column 1: Expecting value"),
        (GOOD, "[1]", r"expected a JSON object, got list"),
        (GOOD, "{}", r"'layer_strategy' is missing"),
        (GOOD, '{"layer_strategy": []}', r"'layer_strategy' is missing"),
        ('"op_type": "Conv2D",', '"op_type": "Conv2D", "op_type": "Conv2D",', r"'op_type' occurs twice in one object"),
    ],
)
def test_text_that_is_no_json(folder: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    Path("c.json").write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(config.ConfigError, match=rf"^c\.json(: |, ){message}"):
        config.read("c.json", LAYERS)


def test_full_width_signs_inside_texts_are_no_error(folder: Path) -> None:
    Path("c.json").write_text(GOOD.replace('"float"', '"float", "//": "\uff0c\uff1a\u201c"'), encoding="utf-8")
    assert config.quantized(config.read("c.json", LAYERS)) == []


def test_no_file_and_no_text(folder: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"c.json: no such configuration file; generate_config_file"):
        config.read("c.json", LAYERS)
    Path("c.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(config.ConfigError, match=r"c.json: not a UTF-8 text file: .* at byte 2"):
        config.read("c.json", LAYERS)


def test_parameter_files_are_the_same_bytes_for_the_same_content(folder: Path) -> None:
    layers = {
        "a": params.layer("Conv2D", "a", [("x", 5)], ("w", -2, 4.0)),
        "b": params.layer("MatMul", "b", [("y", 0), ("z", 1)], None),
    }
    first = params.write(folder, "tensorflow", "m.pb", layers).read_bytes()
    assert params.write(folder, "tensorflow", "m.pb", layers).read_bytes() == first
    content = json.loads(first)
    assert content["format"] == "dopt quantization parameters" and content["version"] == 1
    assert content["layers"]["a"]["input"] == {"tensor": "x", "bits": 8, "exp2": 5, "scale": 1 / 32, "zero_point": 0}
    assert content["layers"]["b"]["input_1"]["tensor"] == "z" and "weight" not in content["layers"]["b"]
