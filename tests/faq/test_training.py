"""The users' FAQ on training: NaN, eval, learning rates, frozen parts, checkpoints, processes, optimizers, switches."""

import copy
import io
import multiprocessing
import pickle

import onnx
import pytest
import torch
import torch.distributed as dist
from torch import nn

import linger
from tests.faq.nets import Net, X, float_net, loss_of, ready, sqnr, train


class Root(nn.Module):
    """`a` may underflow, and a square root follows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.sqrt(torch.relu(self.a(x))))


def test_faq_f05_an_all_zero_output_in_front_of_a_root_is_named(caplog):
    model, x = linger.init(Root()), torch.randn(8, 4)
    train(model, x, steps=2)
    caplog.clear()
    with torch.no_grad():
        model.a.weight.fill_(1e-5)
        model.a.bias.fill_(1e-6)
    loss_of(model, x).backward()
    (said,) = [r.getMessage() for r in caplog.records if "nothing but 0" in r.getMessage()]
    assert "`sqrt`" in said and "test_training.py:" in said and "from 'a'" in said
    zero = linger.init(nn.Sequential(nn.Linear(4, 4)))
    zero.train()(torch.zeros(2, 4))
    scales = [b for name, b in zero.named_buffers() if name.endswith("scale")]
    assert scales and all(0 < float(s) < float("inf") for s in scales)


class Sigmoids(nn.Module):
    def __init__(self, spelling):
        super().__init__()
        self.fc, self.module, self.spelling = nn.Linear(4, 4), nn.Sigmoid(), spelling

    def forward(self, x):
        return self.spelling(self, self.fc(x))


SPELLINGS = {
    "nn.Sigmoid": lambda self, y: self.module(y),
    "torch.sigmoid": lambda self, y: torch.sigmoid(y),
    "Tensor.sigmoid": lambda self, y: y.sigmoid(),
    "F.sigmoid": lambda self, y: nn.functional.sigmoid(y),
}


def test_faq_f10_four_spellings_of_sigmoid_are_one_operator():
    x, results, keys = torch.randn(8, 4), [], []
    for spelling in SPELLINGS.values():
        torch.manual_seed(0)
        model = linger.init(Sigmoids(spelling), example_inputs=x)
        assert str(model).count("iqsigmoidlayer()") == 1  # before the first forward
        with linger.calibration(model):
            model(x)
        results.append(model.eval()(x).detach())
        keys.append({k.removeprefix("module.") for k in model.state_dict()})
    assert all(torch.equal(results[0], y) for y in results)
    assert all(keys[0] == other for other in keys)


def test_faq_f11_backward_in_eval_mode():
    torch.manual_seed(0)
    model = ready(nn.Sequential(nn.Linear(4, 3)), torch.randn(64, 4))
    x = torch.randn(8, 4).clamp(-1, 1)
    model(x).sum().backward()
    codes = linger.QTensor(linger.from_tensor_to_qtensor(x, float(model[0].input_quantizer.scale)))
    assert torch.equal(model[0].bias.grad, torch.full((3,), 8.0))  # nothing saturates: straight through
    assert torch.allclose(model[0].weight.grad, codes.value.sum(0).expand(3, 4), atol=1e-6)


def test_faq_f15_an_exploding_run_names_its_first_layer():
    model = linger.init(float_net())
    with linger.monitor(model, every=1000, stream=io.StringIO(), stop=True) as watch:
        rate = 1.0
        for _ in range(6):
            watch.loss(train(model, steps=1, lr=0.02)[0])
        with pytest.raises(
            linger.Diverged, match=r"'(conv1|conv2|fc|_linger_qtensor_qadd_0)' is the first that breaks"
        ):
            for _ in range(10):
                rate *= 10
                watch.loss(train(model, steps=1, lr=rate)[0])
    assert watch.steps <= 6 + 8
    assert linger.suggest_lr(0.5) == 0.05
    assert linger.suggest_lr(torch.optim.SGD(model.parameters(), 0.5)) == [0.05]


def test_faq_f16_evaluation_after_one_batch():
    torch.manual_seed(0)
    net = float_net()
    want = net(X)
    noise = {}
    for batches in (1, 100):
        model = linger.init(copy.deepcopy(net)).train()
        for i in range(batches):
            with torch.no_grad():
                model(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i)))
        noise[batches] = sqnr(want, model.eval()(X))
        counter = model.state_dict()["conv1.output_quantizer.n_batches"]
        assert counter.dtype == torch.int64 and counter.tolist() == [batches]
    assert noise[1] > noise[100] - 3


def test_faq_f17_strict_loading_says_what_does_not_fit():
    net, model = float_net(), ready(float_net())
    state = dict(model.state_dict())
    without = {k: v for k, v in state.items() if k != "fc.weight"}
    with pytest.raises(RuntimeError, match=r"fc\.weight"):
        ready(float_net()).load_state_dict(without)
    ready(float_net()).load_state_dict({k: v for k, v in state.items() if "quantizer" not in k})
    ready(float_net()).load_state_dict(net.state_dict())
    state["fc.wieght"] = state.pop("fc.weight")
    with pytest.raises(RuntimeError, match=r"'fc\.wieght' is not a key of this model; nearest: 'fc\.weight'"):
        ready(float_net()).load_state_dict(state)


def test_faq_f18_frozen_layers():
    net = float_net()
    net.bn2 = nn.BatchNorm2d(8)
    model = linger.init(net, fold_bn="step")
    frozen = [model.conv1.weight, model.conv1.bias, *model.conv2.bn.parameters()]
    for p in frozen:
        p.requires_grad_(False)
    before = [p.clone() for p in frozen]
    moving = model.fc.weight.clone()
    train(model, steps=10)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert not torch.equal(moving, model.fc.weight)


def test_faq_f21_checkpoints_of_every_form_load_and_compute_the_same(tmp_path):
    net = float_net()
    fused = float_net()
    linger.trace_layers(fused, fused, X)
    forms = {
        "un-fused": net.state_dict(),
        "fused": fused.state_dict(),
        "DataParallel": {f"module.{k}": v for k, v in net.state_dict().items()},
        "nested": {"epoch": 3, "model": {f"module.{k}": v for k, v in net.state_dict().items()}},
        "compiled": {f"_orig_mod.{k}": v for k, v in net.state_dict().items()},
    }
    for name, state in forms.items():
        torch.save(state, tmp_path / "m.pt")
        for how in ("load", "load_state_dict"):
            model = linger.init(Net())
            if how == "load":
                linger.load(model, tmp_path / "m.pt")
            else:
                model.load_state_dict(state)
            found = linger.compare_float(model, net, X)
            assert found and found.largest < 1e-5, (name, how, str(found))
            with linger.quantization(model.eval(), False):
                assert torch.allclose(model(X), net(X), atol=1e-5)
    with torch.no_grad():
        model.conv2.weight.mul_(2)
    wrong = linger.compare_float(model, net, X)
    assert not wrong and wrong.first == "conv2" and "'conv2'" in str(wrong)
    constrained = linger.constrain(float_net())
    before = copy.deepcopy(constrained.state_dict())
    assert linger.compare_float(constrained, net, X)
    assert constrained.fc.normalize_data == 8 and all(
        torch.equal(v, before[k]) for k, v in constrained.state_dict().items()
    )


def test_faq_f21_compare_float_says_what_it_cannot_compare():
    with pytest.raises(ValueError, match="model was not converted"):
        linger.compare_float(Net(), Net(), X)
    with pytest.raises(ValueError, match="original was converted itself"):
        linger.compare_float(linger.init(Net()), linger.init(Net()), X)
    with pytest.raises(TypeError, match=r"original must be a torch\.nn\.Module, got dict"):
        linger.compare_float(linger.init(Net()), {}, X)


class Evaluated(torch.utils.data.Dataset):
    """Samples that another process computes with the model."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.model(X[i : i + 1]).detach()[0]


def in_a_process(rank, folder, model, results):
    """One of two processes of a distributed run."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ddp = nn.parallel.DistributedDataParallel(copy.deepcopy(model))  # torch hands processes shared memory
    train(ddp, X[4 * rank : 4 * rank + 4], steps=2)
    results.put((rank, ddp.module.fc.weight.detach().numpy().copy()))
    dist.destroy_process_group()


def test_faq_f22_models_travel_between_processes(tmp_path):
    model = float_net()
    linger.trace_layers(model, model, X)
    model = ready(model)
    want = model(X[:2]).detach()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(X[:2]), want)
    loader = torch.utils.data.DataLoader(Evaluated(model), 2, num_workers=1, multiprocessing_context="spawn")
    (got,) = list(loader)
    assert torch.equal(got, torch.cat([model(X[i : i + 1]).detach() for i in range(2)]))
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=in_a_process, args=(rank, tmp_path, model, results)) for rank in range(2)]
    for p in processes:
        p.start()
    weights = dict(results.get(timeout=120) for _ in processes)
    for p in processes:
        p.join(60)
        assert p.exitcode == 0
    assert (weights[0] == weights[1]).all() and not (weights[0] == model.fc.weight.detach().numpy()).all()


def test_faq_f23_parameters_that_no_optimizer_holds(tmp_path):
    torch.manual_seed(0)
    net = float_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.05)  # before init: the Parameters stay the same
    model = linger.init(net)
    before = [p.detach().clone() for p in (model.conv1.weight, model.fc.weight)]
    train(model, optimizer=optimizer)
    assert not any(torch.equal(a, b) for a, b in zip(before, (model.conv1.weight, model.fc.weight), strict=True))
    assert not linger.check_optimizer(model, optimizer)
    optimizer = torch.optim.SGD(model.conv1.parameters(), 0.1)
    report = linger.check_optimizer(model, optimizer)
    assert report and "fc.weight" in str(report) and "conv1.weight" not in str(report)
    (tmp_path / "c.yaml").write_text("quant_info: {qat_method: TQT}\n")
    net = float_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    model = linger.init(net, str(tmp_path / "c.yaml"), example_inputs=X)
    assert "conv1.output_quantizer.learning_data" in str(linger.check_optimizer(model, optimizer))


class Norms(nn.Module):
    """A BatchNorm behind a convolution, one behind a ReLU, and one behind a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.alone = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.fc, self.flat = nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.flat(self.fc(self.alone(torch.relu(self.bn(self.conv(x)))).mean((2, 3))))


@pytest.mark.parametrize("stage", ["constrain", "normalize", "once", "step"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_faq_f27_frozen_batch_norm_statistics_at_any_time(stage, when):
    torch.manual_seed(0)
    model = float_net(Norms)
    convert = {
        "constrain": lambda: linger.constrain(model, example_inputs=X),
        "normalize": lambda: linger.normalize_layers(
            linger.trace_layers(model, model, X),
            normalize_modules=(nn.BatchNorm2d, nn.BatchNorm1d, nn.Conv2d, nn.Linear),
        ),
        "once": lambda: linger.init(model, example_inputs=X),
        "step": lambda: linger.init(model, example_inputs=X, fold_bn="step"),
    }[stage]
    try:
        if when == "before":
            linger.SetBnMomentumUpdate(disable=True)
        convert()
        if when == "after":
            linger.SetBnMomentumUpdate(disable=True)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert len(norms) == (1 if stage == "once" else 3) and all(n.momentum == 0 for n in norms)
        assert str(model).count("momentum=0,") == len(norms)
        stats = [(n.running_mean.clone(), n.running_var.clone(), n.weight.detach().clone()) for n in norms]
        train(model, steps=10, lr=0.1)
        for n, (mean, var, weight) in zip(norms, stats, strict=True):
            assert torch.equal(mean, n.running_mean) and torch.equal(var, n.running_var)
            assert not torch.equal(weight, n.weight)
    finally:
        linger.SetBnMomentumUpdate(False)


SWITCHES = {
    "SetIQTensorAdd": ("iqAdd", lambda y, z: y + z),
    "SetIQTensorMul": ("iqMul", lambda y, z: y * z),
    "SetIQTensorDiv": ("iqMul", lambda y, z: y / 3.0),
    "SetIQTensorCat": ("iqCat", lambda y, z: torch.cat([y, z], 1)[:, 3:9]),
    "SetIQTensorSum": ("LinearInt", lambda y, z: y.unsqueeze(1).repeat(1, 6, 1).sum(-1)),
    "SetIQTensorClamp": ("Clip", lambda y, z: y.clamp(-0.5, 0.5)),
    "SetIQTensorSigmoid": ("iqSigmoid", lambda y, z: torch.sigmoid(y)),
    "SetIQTensorTanh": ("iqTanh", lambda y, z: torch.tanh(y)),
    "SetFunctionBmmQuant": ("BmmInt", lambda y, z: torch.bmm(y.unsqueeze(2), z.unsqueeze(1)).flatten(1)[:, :6]),
}


class Switched(nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.a, self.b, self.c, self.operator = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), operator

    def forward(self, x):
        return self.c(self.operator(self.a(x), self.b(x)))


@pytest.mark.parametrize("name", SWITCHES)
def test_faq_f28_every_switch_keeps_its_operator_in_float(name, tmp_path):
    op, call = SWITCHES[name]
    setter = getattr(linger, name)
    x = torch.randn(8, 6)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return ready(Switched(call), x, quant_modules=(nn.Linear,))  # the classic form: bmm is off there

    off_by_default = name == "SetFunctionBmmQuant"
    default = build()
    before = setter(False)
    assert bool(before) is not off_by_default  # the value before
    off = build()
    with setter(True):
        on = build()
    again = build()  # the block has ended
    setter(not off_by_default)
    for model, quantized in ((default, not off_by_default), (off, False), (on, True), (again, False)):
        found = linger.summary(model)
        switched_off = next((n for n in found.notes if n.startswith("operators in float")), "")
        assert bool(found.islands) is not quantized and (setter.operators[0] in switched_off) is not quantized
        linger.onnx.export(model, x[:1], tmp_path / "m.onnx")
        nodes = [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.domain == "linger" or n.op_type == "Clip"]
        between = "Dequant" in [n.op_type for n in nodes][:-1]
        assert between is not quantized
        if op not in ("Clip", "LinearInt"):  # those two are in the file in any case
            assert (op in [n.op_type for n in nodes]) is quantized
