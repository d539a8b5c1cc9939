"""Shape operators: every spelling keeps the integers, and gives the nodes that the forward computed, on every chip."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linger
from linger.nn.nodes.file_tensor import FileTensor
from linger.onnx import OnnxRunner
from linger.runtime import SPELLINGS, resolve
from tests.nn.moves.replay import Replay
from tests.nn.same import PLATFORMS, assert_same_everywhere

ROWS = torch.tensor([3, 0, 0, -1])
CASES = {
    "select": (lambda x: torch.select(x, index=1, dim=2), "Slice Squeeze"),
    "select of a method": (lambda x: x.select(index=-1, dim=3), "Slice Squeeze"),
    "narrow": (lambda x: x.narrow(length=3, start=1, dim=3), "Slice"),
    "chunk": (lambda x: torch.chunk(chunks=2, dim=1, input=x)[1], "Split"),
    "split": (lambda x: x.split(dim=1, split_size=1)[2], "Split"),
    "hsplit": (lambda x: torch.hsplit(x, 2)[1], "Split"),
    "dsplit": (lambda x: x.dsplit([2, 3])[0], "Split"),
    "movedim": (lambda x: torch.movedim(destination=3, source=1, input=x), "Transpose"),
    "flatten": (lambda x: torch.flatten(x, end_dim=2, start_dim=1), "Reshape"),
    "steps": (lambda x: x[:, ::2, 1::3], "Gather Gather"),
    "list of rows": (lambda x: x[:, [2, 0, 0], :-1], "Slice Gather"),
    "tensor of rows": (lambda x: x[:, ROWS, 2, :, None], "Slice Gather Squeeze Unsqueeze"),
    "plane of rows": (lambda x: x[..., ROWS.view(2, 2)], "Gather Reshape"),
    "array of rows": (lambda x: x[:, np.array([1, 2])], "Slice"),
    "index_select": (lambda x: x.index_select(1, ROWS % 4), "Gather"),
    "index_select by name": (lambda x: torch.index_select(x, index=ROWS % 4, dim=-1), "Gather"),
    "flip": (lambda x: x.flip(1, -1), "Gather Gather"),
    "fliplr": (lambda x: torch.fliplr(x), "Gather"),
    "roll": (lambda x: torch.roll(x, (1, -2), dims=(2, 3)), "Gather Gather"),
    "rot90": (lambda x: torch.rot90(x, 3, (2, 3)), "Transpose Gather"),
    "half turn": (lambda x: x.rot90(2, [2, 3]), "Gather Gather"),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), "Gather Gather"),
    "tile": (lambda x: x[:, :1].tile((2, 1)), "Slice Gather"),
    "repeat with a new axis": (lambda x: x[:, 0].repeat(1, 2, 1, 1), "Slice Squeeze Unsqueeze Gather"),
    "expand": (lambda x: x[:, :1].expand(-1, 3, 5, -1), "Slice Gather"),
    "expand_as": (lambda x: x[:, :, :1].expand_as(x), "Slice Gather"),
    "broadcast_to": (lambda x: torch.broadcast_to(x[..., :1], x.shape), "Slice Gather"),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, dim=3), "Gather"),
    "unfold": (lambda x: x.unfold(3, 3, 2), "Gather Reshape"),
    "patches": (nn.Unfold((2, 3), 2, 1, (1, 2)), None),
    "patches, functional": (lambda x: F.unfold(x, 2, stride=2), None),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), "Gather Gather"),
    "nearest by size": (lambda x: F.interpolate(x, (7, 4), mode="nearest"), "Gather Gather"),
    "nearest-exact": (lambda x: F.interpolate(x, scale_factor=(1.5, 0.7), mode="nearest-exact"), "Gather Gather"),
    "nn.Upsample": (nn.Upsample(scale_factor=3), "Gather Gather"),
    "nn.UpsamplingNearest2d": (nn.UpsamplingNearest2d(scale_factor=2), "Gather Gather"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), None),
    "nn.PixelUnshuffle": (lambda x: nn.PixelUnshuffle(2)(x[:, :, :4]), None),
    "nn.ChannelShuffle": (nn.ChannelShuffle(2), None),
    "channel_shuffle of a sequence": (lambda x: F.channel_shuffle(x.flatten(2), 2), None),
    "shuffle by hand": (lambda x: x.view(x.size(0), 2, 2, 5, 6).transpose(1, 2).reshape(x.shape), None),
    "windows": (lambda x: x[..., :4, :].reshape(-1, 4, 2, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).flatten(3), None),
    "heads": (lambda x: x.flatten(2).mT.unflatten(2, (2, 2)).permute(0, 2, 1, 3).mT, None),
}
ACCEPTED = ([0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 2, 1])


class _Net(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Conv2d(2, 4, 1), change

    def forward(self, x):
        return self.change(self.layer(x))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", CASES)
def test_values_move_the_same_way_in_forward_and_file(case, platform, tmp_path):
    torch.manual_seed(0)
    change, nodes = CASES[case]
    batches = [(torch.randn(1, 2, 5, 6),) for _ in range(2)]
    written = assert_same_everywhere(_Net(change), batches, tmp_path, platform)
    assert written[:2] == ["Quant", "Conv2dInt"]
    assert written[-1] == "Dequant"
    if nodes is not None:
        assert written[2:-1] == nodes.split()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("case", CASES)
def test_only_moves_that_the_engines_have(case, platform, tmp_path):
    import onnx

    torch.manual_seed(0)
    assert_same_everywhere(_Net(CASES[case][0]), [(torch.randn(1, 2, 5, 6),)], tmp_path, platform)
    for node in onnx.load(tmp_path / "m.onnx").graph.node:
        if node.op_type == "Transpose":
            (perm,) = node.attribute
            assert list(perm.ints) in ACCEPTED or list(perm.ints) == [0, 2, 1, 3] and platform != "venusA"
        if node.op_type == "ShuffleChannel":
            assert platform == "venus"


@pytest.mark.parametrize("platform", ["arcs", "venusA"])
@pytest.mark.parametrize("sizes", [(2, 3, 4, 5), (1, 3, 1, 5), (1, 2, 3, 4, 5), (2, 2, 3, 1, 2, 3)])
def test_every_order_of_axes_in_moves_that_the_engines_have(sizes, platform):
    x = torch.arange(np.prod(sizes)).view(sizes)
    for perm in itertools.permutations(range(len(sizes))):
        tape = Replay(platform, x)
        in_file = FileTensor(tape, "x", sizes, 1.0, "t").permute(*perm)
        assert torch.equal(tape.values[in_file.value], x.permute(perm)), perm
        assert in_file.shape == tape.values[in_file.value].shape
        known = [*ACCEPTED, [0, 2, 1, 3]] if platform == "arcs" else ACCEPTED
        assert all(p in known for p in tape.perms), (perm, tape.perms)


def test_files_take_other_batches(tmp_path):
    torch.manual_seed(0)
    model = linger.init(_Net(nn.Sequential(nn.ChannelShuffle(2), nn.Upsample(scale_factor=2), nn.PixelShuffle(2))))
    model(torch.randn(2, 2, 4, 4))
    linger.onnx.export(model, torch.randn(1, 2, 4, 4), tmp_path / "m.onnx", dynamic_axes={"input": [0], "output": [0]})
    x = torch.randn(3, 2, 4, 4)
    (got,) = OnnxRunner(tmp_path / "m.onnx").run(x).values()
    assert np.array_equal(got, model.eval()(x).detach().numpy())


SPELLED = {
    "flip": lambda f: (lambda x: f(x)) if "lr" in f.__name__ or "ud" in f.__name__ else (lambda x: f(x, (1,))),
    "roll": lambda f: lambda x: f(x, 1, 2),
    "repeat_interleave": lambda f: lambda x: f(x, 2, 1),
    "index_select": lambda f: lambda x: f(x, 1, ROWS % 4),
    "interpolate": lambda f: lambda x: f(x, scale_factor=2),
    "upsample_nearest": lambda f: lambda x: f(x, scale_factor=2),
    "unfold": lambda f: lambda x: f(x, 2, 2, 1),
    "rot90": lambda f: lambda x: f(x, 1, (2, 3)),
    "channel_shuffle": lambda f: lambda x: f(x, 2),
    "pixel_shuffle": lambda f: lambda x: f(x, 2),
    "pixel_unshuffle": lambda f: lambda x: f(x[:, :, :4], 2),
    "expand": lambda f: {
        "expand_as": lambda x: f(x[:, :1], x),
        "broadcast_to": lambda x: f(x[:, :1], (2, 4, 5, 6)),
        "expand": lambda x: f(x[:, :1], 2, 4, 5, 6),
    }.get(f.__name__, lambda x: f(x, (1, 2, 1, 1))),
}


@pytest.mark.filterwarnings("ignore:`nn.functional.upsample")
@pytest.mark.parametrize(("name", "spelling"), [(n, s) for n in SPELLED for s in SPELLINGS[n]])
def test_every_spelling_keeps_the_integers(name, spelling):
    torch.manual_seed(0)
    change = SPELLED[name](resolve(spelling))
    model = linger.init(_Net(change)).train()
    y = model(torch.randn(2, 2, 5, 6))
    assert linger.runtime.is_quantized(y)
    assert linger.runtime.islands_of(model) == []
    fmt = linger.runtime.info(y)
    assert torch.equal(linger.runtime.codes(y, fmt).float() / fmt.scale, y)


def test_masks_stay_in_float():
    model = linger.init(_Net(lambda x: x[:, torch.tensor([True, False, True, False])]))
    model(torch.randn(1, 2, 5, 6))
    assert [island.operator for island in linger.runtime.islands_of(model)] == ["__getitem__"]


def test_rows_from_a_graph_input(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x, at):
            return self.layer(x)[:, at] + self.layer(x).index_select(1, at)

    torch.manual_seed(0)
    model, x, at = linger.init(Net()), torch.randn(1, 3), torch.tensor([2, 0, 3])
    model(x, at)
    linger.onnx.export(model, (x, at), tmp_path / "m.onnx")
    at = torch.tensor([1, 1, 0])
    (got,) = OnnxRunner(tmp_path / "m.onnx").run([x, at]).values()
    assert np.array_equal(got, model.eval()(x, at).detach().numpy())


def test_empty_parts_are_refused_by_name(tmp_path):
    model = linger.init(_Net(lambda x: x[:, 3:3].sum() + x))
    model(torch.randn(1, 2, 5, 6))
    with pytest.raises(linger.onnx.ExportError, match="empty part"):
        linger.onnx.export(model, torch.randn(1, 2, 5, 6), tmp_path / "m.onnx")


BY_HAND = {
    "view": lambda x: x.view(x.size(0), 2, 2, 5, 6).transpose(1, 2).contiguous().view(x.size(0), -1, 5, 6),
    "reshape": lambda x: x.reshape(-1, 2, 2, 5, 6).permute(0, 2, 1, 3, 4).reshape(x.shape),
    "unflatten": lambda x: torch.swapaxes(x.unflatten(1, (2, 2)), 1, 2).flatten(1, 2),
    "module": nn.ChannelShuffle(2),
}


@pytest.mark.parametrize("platform", ["arcs", "venus"])
@pytest.mark.parametrize("case", BY_HAND)
def test_a_channel_shuffle_is_venus_own_node_however_it_is_written(case, platform, tmp_path):
    torch.manual_seed(0)
    nodes = assert_same_everywhere(_Net(BY_HAND[case]), [(torch.randn(1, 2, 5, 6),)] * 2, tmp_path, platform)
    if platform == "venus":
        assert nodes == ["Quant", "Conv2dInt", "ShuffleChannel", "Dequant"]
    else:
        assert "ShuffleChannel" not in nodes


def test_other_views_are_no_shuffle(tmp_path):
    torch.manual_seed(0)
    change = lambda x: x.view(1, 2, 2, 5, 6).transpose(1, 2).reshape(1, 2, 2, 30)  # noqa: E731
    nodes = assert_same_everywhere(_Net(change), [(torch.randn(1, 2, 5, 6),)] * 2, tmp_path, "venus")
    assert "ShuffleChannel" not in nodes
