"""Every refusal of a configuration file names file, line, column, key and what is allowed; nothing crashes."""

import pickle
import time
from pathlib import Path

import pytest

from linger import settings
from linger.errors import ConfigError


def refused(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as info:
        settings.loads(text, "c.yaml")
    assert info.value.file == "c.yaml"
    assert str(info.value).startswith("c.yaml")
    assert "\n" not in str(info.value)
    return info.value


# text, line, column, key, words that the message must contain
REFUSALS = {
    "unknown key": ("seed: 1\nsed: 1\n", 2, 1, "sed", ["unknown key sed", "did you mean seed?", "quant_info"]),
    "unknown inner key": (
        "quant_info:\n  weight_bit: 4\n",
        2,
        3,
        "weight_bit",
        ["unknown key quant_info.weight_bit", "did you mean weight_bits?"],
    ),
    "key in the wrong place": ("weight_bits: 4\n", 1, 1, "weight_bits", ["it belongs into quant_info"]),
    "section key outside a section": (
        "quant_info: {input_bits: 8}",
        1,
        14,
        "input_bits",
        ["it belongs into quant_info of a section"],
    ),
    "mapping without name": ("part: {quant_info: {weight_bits: 4}}", 1, 1, "part", ["per-layer section"]),
    "duplicate key": ("seed: 1\ndevice: cpu\nseed: 2\n", 3, 1, "seed", ["duplicate key", "line 1"]),
    "duplicate inner key": (
        "clamp_info:\n  clamp_bias_value: 1\n  clamp_bias_value: 1\n",
        3,
        3,
        "clamp_bias_value",
        [],
    ),
    "duplicate section": ("p: {name: [a]}\np: {name: [b]}", 2, 1, "p", ["duplicate key"]),
    "boolean for an integer": ("seed: true", 1, 7, "seed", ["an integer from 0 to 4294967295", "got true"]),
    "boolean for a width": ("quant_info: {weight_bits: true}", 1, 27, "weight_bits", ["4 or 8", "got true"]),
    "integer for a boolean": ("open_quant: 1", 1, 13, "open_quant", ["true or false", "the integer 1"]),
    "word for a boolean": ("open_quant: yes", 1, 13, "open_quant", ["true or false", "'yes'"]),
    "string for a number": ('seed: "3"', 1, 7, "seed", ["the string '3'", "remove the quotes"]),
    "string for a clamp": ("clamp_info: {clamp_bias_value: '8'}", 1, 32, "clamp_bias_value", ["remove the quotes"]),
    "boolean for a clamp": ("clamp_info: {clamp_bias_value: true}", 1, 32, "clamp_bias_value", ["got true"]),
    "number for a string": ("quant_info: {a_calibrate_name: 10}", 1, 32, "a_calibrate_name", ["the integer 10"]),
    "number for a name": ("platform: 4", 1, 11, "platform", ["venus, mars, arcs or venusA", "the integer 4"]),
    "real for an integer": ("quant_info: {weight_bits: 8.0}", 1, 27, "weight_bits", ["the number 8.0"]),
    "null for an integer": ("seed: null", 1, 7, "seed", ["got null"]),
    "null for nothing": ("seed:", 1, 6, "seed", ["got null"]),
    "list for a scalar": ("seed: [1]", 1, 7, "seed", ["got a list"]),
    "mapping for a scalar": ("seed: {a: 1}", 1, 7, "seed", ["got a mapping"]),
    "scalar for a mapping": ("clamp_info: 3", 1, 13, "clamp_info", ["must be a mapping", "the integer 3"]),
    "null for a mapping": ("quant_info:\n", 1, 12, "quant_info", ["must be a mapping", "got null"]),
    "list at the top": ("- 1", 1, 1, None, ["must be a mapping"]),
    "scalar at the top": ("hello", 1, 1, None, ["must be a mapping", "'hello'"]),
    "width out of its set": ("quant_info: {activate_bits: 12}", 1, 29, "activate_bits", ["8, 16 or 32", "12"]),
    "weight width": ("quant_info: {weight_bits: 16}", 1, 27, "weight_bits", ["4 or 8"]),
    "bias width": ("quant_info: {bias_bits: 16}", 1, 25, "bias_bits", ["must be 32"]),
    "rounding": ("quant_info: {round_mode: QValue}", 1, 26, "round_mode", ["floor, floor_add, round or ceil"]),
    "method": ("quant_info: {qat_method: mom}", 1, 26, "qat_method", ["TQT or MOM"]),
    "activation": ("quant_info: {activation_type: relu}", 1, 31, "activation_type", ["Relu", "none"]),
    "platform": ("platform: Venus", 1, 11, "platform", ["venus, mars, arcs or venusA"]),
    "jupiter": ("platform: jupiter", 1, 11, "platform", ["no kernels exist"]),
    "per channel": ("quant_info: {is_perchannel: true}", 1, 29, "is_perchannel", ["per-channel"]),
    "asymmetric": ("quant_info: {is_symmetry: false}", 1, 27, "is_symmetry", ["symmetric"]),
    "strategy": ("quant_info: {w_strategy: KLD}", 1, 26, "w_strategy", ["not implemented", "RANGE_MEAN"]),
    "no strategy": ("quant_info: {w_strategy: BEST}", 1, 26, "w_strategy", ["must be RANGE_MEAN or LEAST_ERROR"]),
    "quant_method": ("quant_method: FAST", 1, 15, "quant_method", ["NATIVE", "ONNX"]),
    "device": ("device: gpu", 1, 9, "device", ["torch device"]),
    "dtype": ("dtype: float32", 1, 8, "dtype", ["torch.float32"]),
    "integer dtype": ("dtype: torch.int8", 1, 8, "dtype", ["torch.float32"]),
    "negative seed": ("seed: -1", 1, 7, "seed", ["from 0"]),
    "huge seed": ("seed: 4294967296", 1, 7, "seed", []),
    "endless seed": ("seed: " + "9" * 5000, 1, 7, "seed", []),
    "zero clamp": ("clamp_info: {clamp_bias_value: 0}", 1, 32, "clamp_bias_value", ["above 0, or null"]),
    "negative clamp": ("clamp_info: {clamp_bias_value: -1}", 1, 32, "clamp_bias_value", []),
    "infinite clamp": ("clamp_info: {clamp_bias_value: .inf}", 1, 32, "clamp_bias_value", []),
    "NaN clamp": ("clamp_info: {clamp_bias_value: .nan}", 1, 32, "clamp_bias_value", []),
    "clamp above float32": ("clamp_info: {clamp_bias_value: 1e39}", 1, 32, "clamp_bias_value", []),
    "clamp below float32": ("clamp_info: {clamp_bias_value: 1e-46}", 1, 32, "clamp_bias_value", []),
    "clamp of 300 digits": ("clamp_info: {clamp_bias_value: 1" + "0" * 300 + "}", 1, 32, "clamp_bias_value", []),
    "unknown method name": ("quant_info: {a_calibrate_name: top10}", 1, 32, "a_calibrate_name", ["top_10", "'top10'"]),
    "empty method name": ("quant_info: {w_calibrate_name: ''}", 1, 32, "w_calibrate_name", []),
    "mix_parts": ("mix_parts: [1]", 1, 12, "mix_parts", ["sections"]),
    "bad YAML": ("seed: [1, 2\ndevice: cpu\n", 2, 7, None, []),
    "tab as indentation": ("clamp_info:\n\tclamp_bias_value: 1\n", 2, 1, None, ["cannot start any token"]),
    "unknown alias": ("seed: *a", 1, 7, None, ["alias without an anchor"]),
    "alias inside its anchor": ("a: &a [*a]", 1, 8, None, ["inside its own anchor"]),
    "tag": ("seed: !!python/name:os.system 3", 1, 7, None, ["tags"]),
    "tag on a mapping": ("clamp_info: !!map {}", 1, 13, None, ["tags"]),
    "mapping as a key": ("? {a: 1}\n: 2", 1, 3, None, ["key must be a scalar"]),
    "two documents": ("seed: 1\n---\nseed: 2\n", 2, 1, None, ["more than one"]),
    "NUL byte": ("seed: 1\nde\0vice: cpu", 2, 3, None, ["UTF-8"]),
    "escaped NUL in a key": ('"seed\\0": 1', 1, 1, "seed\0", ["unknown key"]),
    "control character": ("seed: 1\x07", 1, 8, None, []),
}


@pytest.mark.parametrize(("text", "line", "column", "key", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_place_key_and_what_is_allowed(text, line, column, key, words):
    error = refused(text)
    assert (error.line, error.column, error.key) == (line, column, key)
    assert f"line {line}, column {column}: " in str(error)
    for word in words:
        assert word in str(error)
    assert len(str(error)) < 700


SECTION_REFUSALS = {
    "name is a string": ("name: head", 3, "name", ["a list of layer names", "'head'"]),
    "name is null": ("name:", 3, "name", ["got null"]),
    "name is a mapping": ("name: {a: 1}", 3, "name", ["got a mapping"]),
    "name is empty": ("name: []", 3, "name", ["empty list"]),
    "a name is a number": ("name: [a, 0]", 3, "name", ["the integer 0", 'needs quotes: "0"']),
    "a name is empty": ("name: ['']", 3, "name", ["empty string"]),
    "a name is a list": ("name: [[a]]", 3, "name", ["got a list"]),
    "unknown key": ("name: [a]\n  device: cpu", 4, "device", ["unknown key", "quant_info"]),
    "unknown inner key": ("name: [a]\n  quant_info: {bits: 4}", 4, "bits", ["unknown key p.quant_info.bits"]),
    "width": ("name: [a]\n  quant_info:\n    input_bits: 4", 5, "input_bits", ["8, 16 or 32"]),
    "clamp": ("name: [a]\n  clamp_info: {clamp_bias_value: 0}", 4, "clamp_bias_value", ["p.clamp_info"]),
    "platform": ("name: [a]\n  platform: jupiter", 4, "platform", ["no kernels"]),
    "part": ("name: [a]\n  quant_info: 3", 4, "quant_info", ["must be a mapping"]),
}


@pytest.mark.parametrize(("body", "line", "key", "words"), SECTION_REFUSALS.values(), ids=SECTION_REFUSALS)
def test_a_refusal_in_a_section_names_the_section_too(body, line, key, words):
    error = refused(f"seed: 1\np:\n  {body}\n")
    assert (error.line, error.key) == (line, key)
    assert "(in section p, line 2)" in str(error)
    for word in words:
        assert word in str(error)


def test_a_section_key_has_a_sensible_length():
    assert "1 to 100 characters" in str(refused(f"{'k' * 101}: {{name: [a]}}"))
    assert "1 to 100 characters" in str(refused('"": {name: [a]}'))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("seed: 1\n".encode("utf-16"), "UTF-16"),
        ("seed: 1\n".encode("utf-16-be"), "UTF-8"),
        ("seed: 1\n".encode("utf-16-le"), "UTF-8"),
        ("seed: 1\n".encode("utf-32"), "UTF"),
        ("seed: 1\n".encode("utf-8-sig"), "byte order mark"),
        ("# réglage\nseed: 1\n".encode("latin-1"), "UTF-8"),
        ("# 校准开关\nseed: 1\n".encode("gb18030"), "UTF-8"),
        (b"seed: \xc0\x80", "UTF-8"),
        (b"seed: \xed\xa0\x80", "UTF-8"),
    ],
)
def test_another_encoding_is_refused_with_its_place(data, words, tmp_path):
    error = refused(data)
    assert words in str(error)
    assert error.line is not None
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        settings.load(path)


def test_the_column_counts_characters_not_bytes():
    assert refused("'校准': 1\nquant_info: {'校': 1, x: 2}").column == 1
    assert refused("quant_info: {weight_bits: 4, 校准: 1}").column == 30
    assert refused("# 校准\nseed: 校准 \xe9".encode() + b"\xe9").column == 11


HOSTILE = {
    "nested lists": "[" * 1000,
    "closed nested lists": "seed: " + "[" * 1000 + "]" * 1000,
    "a million lists": "[" * 1_000_000,
    "nested flow mappings": "{a: " * 1000,
    "nested block mappings": "".join(" " * i + "a:\n" for i in range(1000)),
    "nested block lists": "- " * 100_000,
    "nested keys": "? " * 100_000,
    "alias bomb": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
    "alias bomb in a section": "p:\n  name: [&a [x, x], &b [*a, *a], &c [*b, *b], &d [*c, *c]]\n",
    "many anchors": "".join(f"k{i}: &a{i} x\n" for i in range(50_000)),
    "many aliases": "p:\n  name: [&a [], " + "*a, " * 200_000 + "]",
    "many keys": "".join(f"k{i}: x\n" for i in range(70_000)),
    "many equal keys": "k: x\n" * 150_000,
    "many directives": "".join(f"%TAG !a{i}! x\n" for i in range(60_000)) + "--- {}",
    "a long key": "k" * 900_000 + ": 1",
    "a long value": "seed: " + "9" * 1_000_000,
    "a long string": "device: '" + "x" * 1_000_000 + "'",
    "quotes without end": "device: '" + "x\n" * 400_000,
    "too large": "# x\n" * 300_000,
    "commas": "seed: [" + "," * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused_quickly(text):
    start = time.perf_counter()
    error = refused(text)
    assert time.perf_counter() - start < 5
    assert len(str(error)) < 700


def test_a_thousand_levels_are_refused_with_line_and_column():
    error = refused("".join(" " * i + "a:\n" for i in range(1000)))
    assert (error.line, error.column) == (33, 33)
    assert "32 levels" in str(error)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    path = tmp_path / "nowhere" / "c.yaml"
    with pytest.raises(ConfigError, match="no such file") as info:
        settings.load(path)
    assert info.value.file == str(path)
    assert (info.value.line, info.value.column, info.value.key) == (None, None, None)
    assert isinstance(info.value.__cause__, FileNotFoundError)


def test_a_folder_an_endless_file_and_a_strange_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load("a\0b")
    if Path("/dev/zero").exists():
        with pytest.raises(ConfigError, match="1 MiB"):
            settings.load("/dev/zero")
    with pytest.raises(TypeError, match="path must be"):
        settings.load(b"c.yaml")


def test_the_error_is_a_value_error_that_survives_pickling():
    error = refused("seed: 1\nseed: 2")
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConfigError
    assert str(again) == str(error)
    assert (again.file, again.line, again.column, again.key) == ("c.yaml", 2, 1, "seed")


def test_a_refused_file_leaves_the_current_settings_alone(tmp_path):
    before = settings.current()
    (tmp_path / "c.yaml").write_text("seed: x")
    with pytest.raises(ConfigError):
        settings.load(tmp_path / "c.yaml")
    assert settings.current() is before
