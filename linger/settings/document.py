"""The configuration reference in English and Chinese: ``python -m linger.settings [zh]``, written from rules and schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .rules import CLAMP, QUANT, SECTION_QUANT, TOP
from .schema import ClampInfo, QuantInfo, Settings
from .tree import write_scalar
from .write import COMMENTS, dumps

__all__ = ["CHINESE", "CHINESE_RULES", "LANGUAGES", "SECTION_COMMENTS", "configuration_page"]

# what COMMENTS says, for readers of Chinese; test_configuration_page.py compares the keys
CHINESE = {
    "calibration": "校准开关，只保存不起作用：校准请在 `with linger.calibration():` 内运行数据",
    "clamp_info": "约束信息：约束训练（第一阶段）的各种限制",
    "clamp_info.clamp_activation_value": "激活约束值：8 代表约束到 [-8, 8]；`null` 表示不约束",
    "clamp_info.clamp_bias_value": "bias 约束值：约束到 [-value, value]；`null` 表示不约束",
    "clamp_info.clamp_factor_value": "weight 动态约束参数：约束到 `weight.abs().mean() * value`；`null` 表示不约束",
    "clamp_info.clamp_weight_value": "weight 静态约束值：约束到 [-value, value]，设置后取代动态约束；`null` 表示按动态约束",
    "device": "模型移动到的设备：cpu、cuda、cuda:0 等；文件中没有这个键时模型留在原处",
    "dtype": "浮点层的数据类型：torch.float32、torch.float64、torch.float16 或 torch.bfloat16",
    "engine": "导出文件所面向的引擎版本：562ddc7（已发布的引擎）或 later；`null`：在这个键出现之前训练的模型，保持其原有运算",
    "open_quant": "总开关：`false` 时 constrain 和 init 不改动模型",
    "platform": "目标芯片：venus、mars、arcs 或 venusA",
    "quant_info": "量化信息：量化模型的数据格式和方法",
    "quant_info.a_calibrate_name": "激活的校准方法：top_10、abs_max、mse、w_like 或自行注册的方法，一般不需要修改",
    "quant_info.a_strategy": "激活的量化策略：RANGE_MEAN（最接近范围的指数）或 LEAST_ERROR（校准时取均方误差较小的指数）",
    "quant_info.activate_bits": "激活位宽：8、16 或 32 bit",
    "quant_info.activation_type": "激活类型：none、Relu、LeakRelu、ReluX、Sigmoid 或 Tanh；由转换自动判断，一般不需要修改",
    "quant_info.average_scale": "对整个轴求平均时结果的缩放系数：input（与操作数相同，AvgPool2dInt）或 own（更细，LinearInt）："
    "大量数值的平均值通常很小",
    "quant_info.bias_bits": "bias 位宽：32 bit",
    "quant_info.is_perchannel": "per-channel 量化：只能为 `false`，没有芯片支持",
    "quant_info.is_symmetry": "对称量化：只能为 `true`",
    "quant_info.qat_method": "量化训练方法：MOM（滑动最大值）或 TQT（训练得到的阈值）",
    "quant_info.round_mode": "舍入方式：floor_add（floor(x + 0.5)，与芯片一致）、floor、round 或 ceil",
    "quant_info.w_calibrate_name": "权重的校准方法：abs_max、top_10、mse、w_like 或自行注册的方法，一般不需要修改",
    "quant_info.w_strategy": "权重的量化策略：RANGE_MEAN（最接近范围的指数）或 LEAST_ERROR（每一步取均方误差较小的指数）",
    "quant_info.weight_bits": "权重位宽：4 或 8 bit",
    "quant_method": "量化实现：NATIVE（张量所在设备上的内核）、"
    "CUDA（必须有 CUDA 内核，否则报错）或 ONNX（同 NATIVE，导出为标准算子）；"
    "CUDA_GS、COMPILE、TRITON 可以读入，但 init 会拒绝",
    "seed": "torch、numpy 和 random 的随机种子，0 到 4294967295；文件中没有这个键时不设种子",
    "operators": "用户代码中的算子（`+`、`torch.cat` 等），对整个模型生效：`true` 按整数运算，`false` 保持浮点",
    "mix_parts": "为 linger 3.x 的文件保留，始终为 `[]`",
    "name": "模块的限定名或通配模式；一个名称包括该模块及其下所有模块，`*`、`?`、`[...]` 是对整个名称的通配符",
    "quant_info.input_bits": "仅用于分区：输入位宽；不写则同 `activate_bits`",
    "quant_info.output_bits": "仅用于分区：输出位宽；不写则同 `activate_bits`",
}
SECTION_COMMENTS = {
    "name": "qualified module names or globs; a name covers the module and all modules below it, and *, ? and\n"
    "[...] are wildcards on the whole name",
    "quant_info.input_bits": "in sections only: width of inputs; left out: `activate_bits`",
    "quant_info.output_bits": "in sections only: width of results; left out: `activate_bits`",
}
# what rules call allowed, where it is more than a list of values
CHINESE_RULES = {
    "a finite number above 0, or null": "大于 0 的有限数，或 null",
    "true or false": "true 或 false",
    "a mapping of operators to true or false": "算子名到 true 或 false 的映射",
    "a list of names": "名称列表",
    "a torch device such as cpu, cuda or cuda:0": "torch 设备，如 cpu、cuda、cuda:0",
    "an integer from 0 to 4294967295": "0 到 4294967295 的整数",
    "562ddc7 or later, or null (a model trained before this key existed)": "562ddc7、later 或 null（在这个键出现之前训练的模型）",
    "32 (the only width the chips have)": "32（芯片唯一支持的位宽）",
    "abs_max, top_10, mse, w_like or a name that linger.register_calibrate_method knows": "abs_max、top_10、mse、w_like，"
    "或用 linger.register_calibrate_method 注册的名称",
}


class _Words(NamedTuple):
    """One language of the page."""

    head: str
    columns: str
    device: str
    groups: Mapping[str, str]
    sections: str
    section_example: str
    template: str


_SECTION_EXAMPLE = """\
head_16_bits:
  name: [encoder.layers.0, head*]
  quant_info: {weight_bits: 4, input_bits: 8, output_bits: 16}
  clamp_info: {clamp_activation_value: 16}
"""

LANGUAGES = {
    "en": _Words(
        """# Configuration reference

Written by `python -m linger.settings` from `linger/settings`; a test compares. 中文: [配置参考](../zh/guide/configuration.md).

Everything is set in one YAML file, which `linger.constrain`, `linger.init` and the checks read.
`linger.config_save_to_yaml("config.yaml")` writes it with all defaults and a comment at each key. A key that is left out has its
default. An unknown or duplicate key, a wrong type or a value that is not allowed is a `linger.ConfigError` with file, line,
column, key and the allowed values.
""",
        "| key | meaning | default | allowed |",
        "cuda where there is a GPU, else cpu",
        {
            "": "Top level",
            "clamp_info": "`clamp_info`: limits of the constrained stage",
            "quant_info": "`quant_info`: formats",
        },
        """## Sections: settings of single layers

A section is a mapping with a list `name`; its own key is free. The first section that covers a layer is used, and what the
section leaves out comes from the settings above. A name that matches no module is an error. A section takes `platform`,
`open_quant` (`false` keeps its layers and operators in float), all keys of `clamp_info` and `quant_info`, and two more:
""",
        "An example, which [Mixed precision](mixed-precision.md) explains:",
        "## The file with all defaults",
    ),
    "zh": _Words(
        """# 配置参考

本页由 `python -m linger.settings zh` 根据 `linger/settings` 生成，有测试保证一致。\
English: [Configuration reference](../../guide/configuration.md)。

所有设置都在一个 YAML 文件里，`linger.constrain`、`linger.init` 和各种检查都读取它。\
`linger.config_save_to_yaml("config.yaml")` 写出带有全部默认值和注释的文件。没有写的键取默认值。\
未知的键、重复的键、错误的类型或不允许的值都会报 `linger.ConfigError`，并指出文件、行、列、键和允许的值。
""",
        "| 键 | 含义 | 默认值 | 允许的值 |",
        "有 GPU 时为 cuda，否则为 cpu",
        {"": "顶层", "clamp_info": "`clamp_info`：约束信息配置", "quant_info": "`quant_info`：量化信息配置"},
        """## 分区：单独设置某些层

分区（section）是含有 `name` 列表的一组键，它自己的键名可以随意取。一层使用第一个覆盖它的分区；\
分区中没有写的键取上面的全局设置。匹配不到任何模块的名称会报错。\
分区可以包含 `platform`、`open_quant`（`false` 表示其中的层和算子保持浮点）、`clamp_info` 和 `quant_info` 的所有键，以及：
""",
        "例子如下，说明见[混合精度](mixed-precision.md)：",
        "## 带全部默认值的文件\n\n文件中的注释为英文，含义见上面各表。",
    ),
}


def configuration_page(language: str = "en") -> str:
    """Return docs/guide/configuration.md (``en``) or docs/zh/guide/configuration.md (``zh``)."""
    words, chinese = LANGUAGES[language], language == "zh"
    top = {key: (write_scalar(getattr(Settings(device="cpu"), key)), rule.expected) for key, rule in TOP.items()}
    top |= {"operators": ("{}", "a mapping of operators to true or false"), "mix_parts": ("[]", "[]")}
    groups = {"": top}
    for part, defaults, rules in (("clamp_info", ClampInfo(), CLAMP), ("quant_info", QuantInfo(), QUANT)):
        rows = {key: (write_scalar(getattr(defaults, key)), rule.expected) for key, rule in rules.items()}
        groups[part] = {f"{part}.{key}": row for key, row in rows.items()}
    own = {"name": ("", "a list of names")}
    own |= {f"quant_info.{k}": ("", rule.expected) for k, rule in SECTION_QUANT.items() if k not in QUANT}
    text = [words.head]
    for part, title in words.groups.items():
        text += [f"## {title}\n", _table(words, chinese, groups[part])]
    text += [words.sections, _table(words, chinese, own)]
    text += [f"{words.section_example}\n\n```yaml\n{_SECTION_EXAMPLE}```\n"]
    text += [f"{words.template}\n\n```yaml\n{dumps(Settings(device='cpu'))}```\n"]
    return "\n".join(text)


def _table(words: _Words, chinese: bool, rows: Mapping[str, tuple[str, str]]) -> str:
    """Dotted key -> default as the file has it, and what is allowed."""
    lines = [words.columns, "|---|---|---|---|"]
    for dotted, (default, allowed) in rows.items():
        key = dotted.rpartition(".")[2]
        meaning = CHINESE[dotted] if chinese else {**COMMENTS, **SECTION_COMMENTS}[dotted].replace("\n", " ")
        shown = words.device if key == "device" else f"`{default}`" if default else ""
        lines.append(f"| `{key}` | {meaning} | {shown} | {_translated(allowed) if chinese else allowed} |")
    return "\n".join(lines) + "\n"


def _translated(allowed: str) -> str:
    """A sentence of CHINESE_RULES, or a list of values."""
    return CHINESE_RULES.get(allowed) or allowed.replace(", ", "、").replace(" or ", " 或 ")
