"""What a configuration says: defaults, seeds' files, sections, inheritance, what a layer is built from."""

import textwrap
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

import linger
from linger import settings
from linger.errors import ConfigError
from linger.settings import ClampInfo, QuantInfo, QuantMode, Section, Settings

# The configuration of the user documents, indentation and comments as printed there.
USER_FILE = """\
    calibration: false  # 校准开关
    clamp_info: # 约束信息配置
        clamp_activation_value: 8   # 激活约束浮点值，8代表约束到[-8, 8]
        clamp_bias_value: null      # bias约束浮点值，默认值为None
        clamp_factor_value: 7       # weight动态约束参数，默认值为7，代表约束到weight.abs().mean() * 7
        clamp_weight_value: null    # weight静态约束值，默认值为None
    device: cuda
    dtype: torch.float32    # 默认浮点数据类型
    open_quant: true
    platform: venusA        # 平台设置，目前支持arcs, mars, venusA
    quant_info: #量化信息配置
        a_calibrate_name: top_10    # 激活校准方法，默认top_10，一般不需要修改
        a_strategy: RANGE_MEAN      # 激活量化原理
        activate_bits: 8            # 激活数据位宽，默认8bit，支持8bit，16bit，32bit
        activation_type: none       # 激活类型，默认None
        bias_bits: 32               # bias数据位宽，默认32bit
        is_perchannel: false        # perchannel量化开关，暂不支持此功能
        is_symmetry: true           # 对称/非对称量化开关，目前只支持对称量化
        qat_method: MOM             # QAT量化方案，支持MOM和TQT
        round_mode: floor_add       # 舍入方式，默认支持floor+0.5
        w_calibrate_name: abs_max   # 权重校准原理，默认abs_max，一般不需要修改
        w_strategy: RANGE_MEAN      # 权重量化原理
        weight_bits: 8              # 权重位宽，默认8bit，支持4bit，8bit
    quant_method: NATIVE            # 量化/伪量化方式，默认NATIVE，支持NATIVE、CUDA、ONNX
    seed: 42
"""
TOP_KEYS = {
    "calibration",
    "clamp_info",
    "device",
    "dtype",
    "open_quant",
    "platform",
    "quant_info",
    "quant_method",
    "seed",
}
SECTIONS = """\
platform: arcs
quant_info: {weight_bits: 8, activate_bits: 16, qat_method: TQT, round_mode: ceil}
clamp_info: {clamp_factor_value: 3, clamp_bias_value: 2.5}
part_head:
  name: [encoder.layers.0, head]
  quant_info: {weight_bits: 4, input_bits: 8, output_bits: 32, qat_method: MOM, a_calibrate_name: abs_max}
  clamp_info: {clamp_activation_value: 16, clamp_factor_value: null}
any_key:
  name: ['decoder.*.conv?', 'head', '0']
  platform: mars
"""


@pytest.mark.parametrize("with_calibration", [True, False])
@pytest.mark.parametrize("indented", [True, False])
def test_the_users_file_loads_as_printed(with_calibration, indented):
    text = USER_FILE if with_calibration else USER_FILE.split("\n", 1)[1]
    read = settings.loads(text if indented else textwrap.dedent(text))
    assert read == Settings(device="cuda")
    assert read.explicit == (TOP_KEYS if with_calibration else TOP_KEYS - {"calibration"})
    assert read.sections == ()


def test_nothing_given_is_the_default_and_nothing_is_explicit():
    for text in ("", "# only a comment\n", "---\n", "{}", "null", b""):
        read = settings.loads(text)
        assert read == settings.defaults()
        assert read.explicit == frozenset() or text == "{}"
    default = settings.defaults()
    assert default.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert default.clamp_info == ClampInfo(8, None, 7, None)
    assert default.quant_info == QuantInfo()
    assert (default.platform, default.seed, default.quant_method) == ("venusA", 42, "NATIVE")


@pytest.mark.parametrize("name", ["NATIVE", "CUDA", "CUDA_GS", "COMPILE", "TRITON", "ONNX"])
def test_every_documented_quant_method_is_accepted_in_a_file(name):
    assert settings.loads(f"quant_method: {name}").quant_method == name


@pytest.mark.parametrize("name", ["venus", "mars", "arcs", "venusA"])
def test_every_platform_with_kernels_is_accepted(name):
    assert settings.loads(f"platform: {name}").layer("x").platform == name


def test_numbers_stay_as_written():
    read = settings.loads("clamp_info: {clamp_activation_value: 8.0, clamp_bias_value: 0x10, clamp_weight_value: 1e-3}")
    values = (
        read.clamp_info.clamp_activation_value,
        read.clamp_info.clamp_bias_value,
        read.clamp_info.clamp_weight_value,
    )
    assert [(type(v), v) for v in values] == [(float, 8.0), (int, 16), (float, 0.001)]


def test_quotes_and_block_scalars_make_strings():
    read = settings.loads("'platform': \"arcs\"\ndevice: 'cpu'\ndtype: >-\n  torch.float16\n")
    assert (read.platform, read.device, read.dtype) == ("arcs", "cpu", "torch.float16")


def test_an_alias_repeats_a_value():
    read = settings.loads("a: {name: [x], quant_info: &q {weight_bits: 4}}\nb: {name: [y], quant_info: *q}\n")
    assert [s.quant_info.weight_bits for s in read.sections] == [4, 4]


def test_a_section_inherits_what_it_does_not_name():
    read = settings.loads(SECTIONS)
    head, other = read.sections
    assert (head.key, head.name, head.line, head.platform) == ("part_head", ("encoder.layers.0", "head"), 4, "arcs")
    assert head.clamp_info == ClampInfo(16, 2.5, None, None)
    assert head.quant_info == replace(
        read.quant_info, weight_bits=4, input_bits=8, output_bits=32, qat_method="MOM", a_calibrate_name="abs_max"
    )
    assert (other.platform, other.quant_info, other.clamp_info) == ("mars", read.quant_info, read.clamp_info)
    assert read.explicit >= {"part_head", "any_key", "platform"}


def test_a_layer_is_built_from_the_first_section_that_matches():
    read = settings.loads(SECTIONS)
    head = read.layer("head.3")
    assert (head.input_bits, head.weight_bits, head.output_bits) == (8, 4, 32)
    assert (head.method, head.platform, head.a_calibrate, head.w_calibrate) == ("MOM", "arcs", "abs_max", "abs_max")
    assert head.clamp == ClampInfo(16, 2.5, None, None)
    assert head.rounding is QuantMode.ceil
    assert read.layer("head").weight_bits == 4  # both sections name it
    assert read.layer("decoder.a.b.conv1").platform == "mars"
    body = read.layer("header")
    assert (body.input_bits, body.weight_bits, body.output_bits, body.method) == (16, 8, 16, "TQT")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("head", ["head", "head.0", "head.a.b"], ["heads", "a.head", ""]),
        ("a.b", ["a.b", "a.b.c"], ["a", "a.bc"]),
        ("head*", ["head", "head.0", "heads"], ["a.head"]),
        ("*.conv?", ["a.conv1", "a.b.conv2"], ["conv1", "a.conv12"]),
        ("l[01]", ["l0", "l1", "l0.x"], ["l2", "L0"]),
        ("*", ["", "a", "a.b"], []),
    ],
)
def test_a_name_or_glob_covers_descendants(pattern, yes, no):
    section = Section("p", (pattern,), ClampInfo(), QuantInfo(), "arcs")
    assert [name for name in [*yes, *no] if section.matches(name)] == yes


def test_settings_are_frozen_and_checked():
    with pytest.raises(FrozenInstanceError):
        settings.current().seed = 3
    for make in (
        lambda: QuantInfo(weight_bits=5),
        lambda: QuantInfo(input_bits=9),
        lambda: ClampInfo(clamp_bias_value=-1),
        lambda: Settings(platform="jupiter"),
        lambda: Settings(seed=True),
        lambda: replace(Settings(), device=3),
    ):
        with pytest.raises(ConfigError, match=r"must be|not available") as info:
            make()
        assert info.value.key is not None
        assert info.value.line is None
    with pytest.raises(TypeError, match="clamp_info must be a ClampInfo"):
        Settings(clamp_info=None)


def test_two_configurations_share_nothing():
    first, second = settings.loads("seed: 1"), settings.loads("seed: 2")
    settings.use(first)
    layer = settings.current().layer("x")
    settings.use(second)
    assert (first.seed, settings.current().seed) == (1, 2)
    assert layer == first.layer("x")
    with pytest.raises(TypeError, match="use: settings must be"):
        settings.use({"seed": 3})


def test_a_later_check_can_blame_a_key_with_its_place():
    read = settings.loads("seed: 1\nquant_info:\n  a_calibrate_name: w_like\n", "c.yaml")
    error = read.error("quant_info.a_calibrate_name", "no such method")
    assert str(error) == "c.yaml, line 3, column 21: quant_info.a_calibrate_name: no such method"
    assert (error.file, error.line, error.column, error.key) == ("c.yaml", 3, 21, "a_calibrate_name")
    absent = read.error("device", "no such device")
    assert (str(absent), absent.line) == ("c.yaml: device: no such device", None)


def test_a_registered_calibration_method_is_accepted():
    name = "method_of_this_test"
    with pytest.raises(ConfigError, match=f"w_like or a name .* got the string '{name}'"):
        settings.loads(f"quant_info: {{w_calibrate_name: {name}}}")
    linger.register_calibrate_method(name)(lambda quantizer, tensor, bits: None)
    assert settings.loads(f"quant_info: {{w_calibrate_name: {name}}}").layer("x").w_calibrate == name
