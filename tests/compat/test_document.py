"""The classic generation's document, run as written; only names and paths that it leaves open are filled in."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import linger

DOCUMENT = (Path(__file__).parents[1] / "data" / "guide_classic.md").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(b) for b in re.findall(r"^[ ]*```[a-z]*[ ]*\n(.*?)^[ ]*```", DOCUMENT, re.DOTALL | re.MULTILINE)
]


def block(start: str, nth: int = 0) -> str:
    """The n-th block whose text contains `start`."""
    return [b for b in BLOCKS if start in b][nth]


def printed(title: str) -> list[str]:
    """The lines of the network printed behind a sentence of the document."""
    text = DOCUMENT[DOCUMENT.index(title) :]
    return [
        line.strip() for line in re.search(r"```\n(Net\(.*?)\n```", text, re.DOTALL)[1].splitlines() if line.strip()
    ]


def same_lines(net: nn.Module, lines: list[str]) -> None:
    """Each printed line starts as the document's; what follows inside its parentheses may be more."""
    mine = [line.strip() for line in str(net).splitlines()]
    lines = [line for line in lines if not line.startswith("(Pdb)")]
    assert len(mine) == len(lines)
    for got, want in zip(mine, lines, strict=True):
        # a slip of the document (250 inputs defined, 25000 printed), and torch's own line for BatchNorm has grown
        want = want.replace("25000", "250").replace("affine=True, track", "affine=True, bias=True, track")
        assert got.startswith(want.removesuffix(")")), f"{got!r} is not {want!r}"


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The document's names: its network class, an input, and the checkpoints it loads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.ignore").mkdir()
    scope = {"linger": linger, "torch": torch, "nn": nn}
    exec(block("class Net(nn.Module)"), scope)
    torch.manual_seed(0)
    scope["aa"] = torch.randn(4, 10, 5, 5)
    scope["net"] = scope["Net"]()
    monkeypatch.setattr(nn.Module, "cuda", lambda self: self)  # allowed where there is none
    torch.save(scope["Net"]().state_dict(), "data.ignore/convbn_float.pt")
    return scope


def trained(net: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def exported(net: nn.Module, x: torch.Tensor) -> None:
    net.eval()
    with linger.compat.redirect_torch_onnx_export(), torch.no_grad():
        torch.onnx.export(net, x[:1], "net.onnx", opset_version=12)
    (got,) = linger.onnx.OnnxRunner("net.onnx").run(x[:1]).values()
    assert torch.equal(torch.from_numpy(got), net(x[:1]).detach())


def test_part_1_direct(names):
    exec(block("linger.trace_layers(net, net, aa, fuse_bn = True)"), names)
    same_lines(names["net"], printed("融合之后的网络结构"))
    exec(block("replace_tuple =").replace("replace_module", "replace_tuple"), names)
    same_lines(names["net"], printed("量化完成之后的模型为"))
    torch.save(names["Net"]().state_dict(), "data.ignore/convbn_quant.pt")
    exec(block("convbn_quant.pt"), names)
    trained(names["net"], names["aa"])
    exported(names["net"], names["aa"])


def test_part_1_default_classes(names):
    exec(block("linger.trace_layers(net, net, aa, fuse_bn = True)"), names)
    exec(block("net = linger.init(net)\n"), names)
    same_lines(names["net"], printed("量化完成之后的模型为"))


def test_part_2_two_stages(names):
    exec(block("convbn_float.pt"), names)  # stage 1; saves convbn_normalize.pt
    same_lines(names["net"], printed("normalize之后的网络"))
    names["net"] = names["Net"]()
    exec(block("linger.disable_quant(net.fc)"), names)
    same_lines(names["net"], printed("定点之后的网络变换为"))
    conv = names["net"].conv
    assert (conv.normalize_data, conv.normalize_weight, conv.normalize_bias) == (8, 8, 8)
    assert conv.quant.clamp == linger.settings.ClampInfo(8, 8, None, 8)
    trained(names["net"], names["aa"])
    exported(names["net"], names["aa"])


def test_part_3_without_training_the_first_stage(names):
    first = dict(names)
    exec(block("convbn_float.pt"), first)
    exec(block("linger.disable_quant(net.fc)", 1), names)
    same_lines(names["net"], printed("定点之后的网络变换为"))
    exported(names["net"], names["aa"])
