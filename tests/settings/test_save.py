"""Saved files: the same bytes after save, load, save; complete or not there; any value survives."""

import os
import stat
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linger import _C, settings
from linger.errors import ConfigError
from linger.settings import ClampInfo, QuantInfo, Section, Settings
from linger.settings.tree import parse, plain_value, write_scalar

DOCUMENTED = """calibration clamp_info clamp_activation_value clamp_bias_value clamp_factor_value clamp_weight_value device
    dtype open_quant platform quant_info a_calibrate_name a_strategy activate_bits activation_type average_scale bias_bits
    is_perchannel is_symmetry qat_method round_mode w_calibrate_name w_strategy weight_bits quant_method seed mix_parts""".split()

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "",
        "null",
        "~",
        "true",
        "TRUE",
        "yes",
        "0",
        "-1",
        "0x1f",
        "1e3",
        ".5",
        ".inf",
        "-.inf",
        ".nan",
        "- a",
        "a: b",
        "a #b",
    ]
    + [
        "#",
        "'",
        '"',
        "''",
        "*",
        "&a",
        "!t",
        "%d",
        "@",
        "`",
        "[",
        "{",
        "}",
        ",",
        "?",
        ":",
        "-",
        "---",
        "...",
        " a",
        "a ",
    ]
    + [
        "a\nb",
        "\n",
        "\t",
        "a\u2028b",
        "a\x85b",
        "\ufeff",
        "\x00",
        "\x7f",
        "\u00e9",
        "校准",
        "😀",
        "a" * 300,
        "<<",
        "=",
        "|",
        ">",
    ]
)
LIMIT = st.none() | st.integers(1, 10**30) | st.floats(2.0**-126, 3.4e38)


def round_trip(value: Settings) -> Settings:
    text = settings.dumps(value)
    again = settings.loads(text)
    assert settings.dumps(again) == text
    return again


def test_every_documented_key_is_written_with_a_comment():
    text = settings.dumps(settings.defaults())
    written = {
        line.partition(":")[0].strip(): line for line in text.splitlines() if not line.startswith("#") and ":" in line
    }
    assert set(DOCUMENTED) <= set(written)
    for key in DOCUMENTED:
        assert "  # " in written[key], key
    assert "calibration: false" in text
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 120


def test_scalars_are_plain():
    text = settings.dumps(replace(settings.defaults(), device="cpu"))
    for line in ("clamp_activation_value: 8 ", "clamp_bias_value: null ", "open_quant: true ", "seed: 42 ", "device: cpu ",
                 "dtype: torch.float32 ", "a_calibrate_name: top_10 "):  # fmt: skip
        assert line in text


def test_the_commented_section_of_the_template_is_valid():
    lines = settings.dumps(settings.defaults()).splitlines()
    start = lines.index("# my_section:")
    example = [line[2:] for line in lines[start : start + 5]]
    read = settings.loads("\n".join(example))
    assert read.layer("head.2").weight_bits == 4
    assert read.layer("encoder.layers.0.conv").platform == "arcs"


SECTIONS = """\
b: {name: [a, 'x*', "0", 'null'], quant_info: {output_bits: 16, input_bits: 8, weight_bits: 4}, platform: mars}
"odd: key": {name: ["\\ttab", 校准], clamp_info: {clamp_bias_value: 0.5, clamp_factor_value: null}}
"1": {name: [c]}
"""


def test_sections_survive_and_still_inherit():
    read = settings.loads(SECTIONS)
    again = round_trip(read)
    assert again == read
    assert [s.key for s in again.sections] == ["b", "odd: key", "1"]
    assert again.sections[1].name == ("\ttab", "校准")
    assert again.sections[0].given == (
        "platform",
        "quant_info.input_bits",
        "quant_info.output_bits",
        "quant_info.weight_bits",
    )
    changed = replace(again, quant_info=QuantInfo(activate_bits=32, weight_bits=8))
    assert changed.layer("a").weight_bits == 4
    assert changed.layer("c").output_bits == 32


@given(
    clamps=st.tuples(LIMIT, LIMIT, LIMIT, LIMIT),
    names=st.tuples(*[st.sampled_from(["abs_max", "top_10", "w_like", "my method: 1"])] * 2),
    seed=st.integers(0, 2**32 - 1),
    widths=st.tuples(st.sampled_from([8, 16, 32]), st.sampled_from([4, 8])),
    words=st.tuples(
        st.sampled_from(["MOM", "TQT"]), st.sampled_from(["floor", "ceil"]), st.sampled_from(["arcs", "mars"])
    ),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_any_settings_survive(clamps, names, seed, widths, words, flags):
    settings.allow_calibration("my method: 1")
    value = Settings(
        calibration=flags[0],
        open_quant=flags[1],
        seed=seed,
        platform=words[2],
        clamp_info=ClampInfo(*clamps),
        quant_info=QuantInfo(
            a_calibrate_name=names[0],
            w_calibrate_name=names[1],
            activate_bits=widths[0],
            weight_bits=widths[1],
            qat_method=words[0],
            round_mode=words[1],
        ),
    )
    assert round_trip(value) == value


@given(
    key=TEXT.filter(lambda key: 0 < len(key) <= 100 and key not in DOCUMENTED),
    names=st.lists(TEXT.filter(bool), min_size=1, max_size=4),
    bits=st.sampled_from([4, 8]),
)
def test_any_section_survives(key, names, bits):
    section = Section(
        key, tuple(names), ClampInfo(), QuantInfo(weight_bits=bits), "venusA", ("quant_info.weight_bits",)
    )
    value = Settings(sections=(section,))
    assert round_trip(value) == value


@given(TEXT)
def test_any_text_is_one_line_and_reads_back_as_text(text):
    line = write_scalar(text)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    for document in (line, f"k: {line}  # comment", f"- {line}"):
        node = parse(document)
        while node.kind in ("map", "list"):
            node = node.pairs[0][1] if node.kind == "map" else node.items[0]
        assert node.scalar == text


@given(st.none() | st.booleans() | st.integers(-(10**50), 10**50) | st.floats(allow_nan=False, allow_infinity=False))
def test_any_scalar_keeps_its_type(value):
    assert type(plain_value(write_scalar(value))) is type(value)
    assert plain_value(write_scalar(value)) == value


@given(st.text(string.printable, max_size=200) | st.binary(max_size=200))
def test_any_bytes_are_settings_or_a_config_error(text):
    try:
        assert isinstance(settings.loads(text), Settings)
    except ConfigError as error:
        assert len(str(error)) < 700


@given(st.text(st.sampled_from(list("a: -[]{}&*!|>'\"%@#,?\n\t \\0~.")), max_size=60))
def test_any_yaml_like_text_is_settings_or_a_config_error(text):
    try:
        assert isinstance(settings.loads(text), Settings)
    except ConfigError as error:
        assert error.line is None or error.line <= text.count("\n") + 2


def test_what_cannot_be_utf8_is_a_value_error():
    with pytest.raises(ValueError, match="surrogates"):
        _C.yaml_scalar("\ud800")
    with pytest.raises(ValueError, match="surrogates"):
        settings.loads("seed: \ud800")


def test_any_path_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    want = settings.dumps(settings.current())
    (tmp_path / "sub").mkdir()
    for path in ("a.yaml", "./b.yaml", Path("sub") / "c", str(tmp_path / "sub" / "名.yaml"), b"bytes.yaml"):
        settings.config_save_to_yaml(path)
        assert Path(os.fsdecode(path)).read_text(encoding="utf-8") == want
        assert settings.load(os.fsdecode(path)) == settings.current()
    assert sorted(os.listdir()) == ["a.yaml", "b.yaml", "bytes.yaml", "sub"]
    with pytest.raises(FileNotFoundError):
        settings.config_save_to_yaml("nowhere/c.yaml")


def test_save_load_save_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    settings.config_save_to_yaml(first)
    settings.use(settings.load(first))
    settings.config_save_to_yaml(second)
    assert first.read_bytes() == second.read_bytes()
    assert b"\r" not in first.read_bytes()


def test_an_existing_file_is_replaced_whole_and_keeps_its_mode(tmp_path, monkeypatch):
    path, link = tmp_path / "c.yaml", tmp_path / "link.yaml"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    settings.config_save_to_yaml(link, overwrite=True)
    assert link.is_symlink()
    assert settings.load(path) == settings.current()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def fail(*_args: object) -> None:
        raise OSError("disk full")

    before = path.read_bytes()
    monkeypatch.setattr("linger.settings.store.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        settings.config_save_to_yaml(path, overwrite=True)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.yaml", "link.yaml"]


def test_a_new_file_has_the_usual_mode(tmp_path):
    mask = os.umask(0o027)
    try:
        settings.config_save_to_yaml(tmp_path / "c.yaml")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "c.yaml").stat().st_mode) == 0o640


def test_an_existing_file_with_other_settings_is_kept_and_one_warning_lists_them(tmp_path):
    path = tmp_path / "config.yaml"
    text = """# mine
platform: arcs
quant_info: {weight_bits: 4}
operators: {add: false}
head:
  name: [head]
  quant_info: {output_bits: 16}
"""
    path.write_text(text)
    before = path.stat().st_mtime_ns
    with pytest.warns(UserWarning, match="stays as it is") as told:
        settings.config_save_to_yaml(path)
    assert path.read_text() == text and path.stat().st_mtime_ns == before
    assert len(told) == 1 and str(told[0].message) == (
        f"linger: {path} exists and stays as it is; overwrite=True replaces it. Settings that differ (file / current):\n"
        "  platform: arcs / venusA\n"
        "  quant_info.weight_bits: 4 / 8\n"
        "  operators.add: false / none\n"
        "  section head: name: - head quant_info: output_bits: 16 / none"
    )
    assert told[0].filename == __file__
    settings.config_save_to_yaml(path, overwrite=True)
    assert settings.load(path) == settings.current()


def test_an_existing_file_with_these_settings_is_untouched(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("# mine\nseed: 42\n")
    before = path.stat().st_mtime_ns
    settings.config_save_to_yaml(path)
    assert path.read_text() == "# mine\nseed: 42\n" and path.stat().st_mtime_ns == before


def test_sections_in_another_order_are_other_settings(tmp_path):
    path = tmp_path / "config.yaml"
    a, b = "a: {name: [x]}\n", "b: {name: [x]}\n"
    path.write_text(a + b)
    settings.use(settings.loads(b + a))
    with pytest.warns(UserWarning, match=r"order of sections: a, b / b, a"):
        settings.config_save_to_yaml(path)


@pytest.mark.parametrize("text", ["platform: pluto\n", "- a\n", "\x00"])
def test_an_existing_file_that_is_no_configuration_is_kept(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.warns(
        UserWarning, match=r"exists, is no configuration \(.*\) and stays as it is; overwrite=True replaces it"
    ):
        settings.config_save_to_yaml(path)
    assert path.read_text() == text


def test_the_template_has_the_seed_of_the_documents():
    assert "\nseed: 42 " in settings.dumps(settings.defaults())
