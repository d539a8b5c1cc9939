"""Who knows only the users' earlier documents finds each of their headings, with a page that exists (test_guide.py)."""

import re

import pytest
from pages import CHINESE, ENGLISH

# Of each document in turn, as they stand there.
HEADINGS = [
    "第一阶段，浮点约束训练",
    "第二阶段，定点量化微调",
    "config.yaml 介绍",
    "基础配置",
    "校准（PTQ）使用方法",
    "linger.init/constrain中'disable_module'使用方法",
    "linger.init/constrain中'disable_submodel'使用方法",
    "linger.init中可通过yaml文件加载配置，当前配置可通过linger.config_save_to_yaml保存",
    "config.yaml 介绍",
    "量化训练",
    "1.直接原始浮点网络转定点网络进行训练",
    "2.Normalize浮点网络进行训练之后转换定点网络",
    "3.Normalize浮点网络不进行训练转换定点网络",
    "通用注意事项",
    "常见问题定位与解决",
    "网络搭建推荐",
    "插件式量化",
    "依赖环境准备",
    "TensorFlow插件式量化",
    "准备TensorFlow环境",
    "获取量化配置模板",
    "优化策略配置",
    "训练模型",
    "转换模型",
    "PyTorch插件式量化",
    "准备PyTorch环境",
    "生成量化配置json文件",
    "生成量化模型",
]


@pytest.mark.parametrize("folder", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_every_heading_has_its_page(folder):
    found = re.findall(r"(?m)^\| ([^|]+?) \| .*\]\([^)]+\)", (folder / "old-documents.md").read_text("utf-8"))
    without_gloss = [re.sub(r" \([^()]*\)$", "", heading) for heading in found]
    assert without_gloss == HEADINGS
