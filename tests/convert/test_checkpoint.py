"""``linger.save`` and ``linger.load`` from the user's side; ``linger.check_optimizer``."""

import io
import warnings
from collections import OrderedDict

import pytest
import torch
from convert.nets import Dynamic, Net, Plain, images, trained
from torch import nn

import linger
from linger.convert import record_of
from linger.nn import Conv2dInt
from linger.nn.constrained.fused import NormalizeConvBN2d

CONFIG = """
quant_info: {qat_method: TQT, weight_bits: 4}
clamp_info: {clamp_activation_value: 3}
head_section:
  name: [head]
  quant_info: {weight_bits: 8}
"""


def configured(tmp_path, text=CONFIG):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def initialised(tmp_path, **options):
    q = linger.init(trained(), configured(tmp_path), example_inputs=images(), **options)
    for i in range(3):
        q(images(seed=i))
    linger.settings.use(linger.settings.defaults())
    return q


def loaded(model, *args, **kwargs):
    assert linger.load(model, *args, **kwargs) is model
    return linger.load_report(model)


def same(a, b):
    assert torch.equal(a.eval()(images(seed=9)), b.eval()(images(seed=9)))


@pytest.mark.parametrize("fold_bn", ["once", "step"])
def test_a_float_model_becomes_what_was_saved(tmp_path, fold_bn):
    q = initialised(tmp_path, fold_bn=fold_bn, disable_submodel=("body*",))
    linger.save(q, tmp_path / "q.pt")
    m = Net()
    report = loaded(m, tmp_path / "q.pt")
    same(m, q)
    assert isinstance(m.conv, Conv2dInt) and type(m.body[0]) is nn.Conv2d and m.conv.fused_relu
    assert (m.conv.weight_quantizer.bits, m.head.weight_quantizer.bits, m.head.quant.method) == (4, 8, "TQT")
    assert record_of(m).settings == record_of(q).settings
    assert m.state_dict().keys() == q.state_dict().keys()
    text = str(report)
    assert "converted the model with the recorded settings (linger.init)" in text
    assert "created 1 operators of user code: _linger_qtensor_qadd_0" in text
    assert report.missing == report.unexpected == report.without_data == []
    assert "<li>" in report._repr_html_() and report.to_dict()["did"] == report.did
    assert linger.settings.current() == linger.settings.defaults()  # the configuration in force is the user's


def test_a_plain_state_dict_knows_its_settings_too(tmp_path):
    q = initialised(tmp_path)
    torch.save({"epoch": 1, "model": nn.DataParallel(q).state_dict()}, tmp_path / "q.pt")
    m = Net()
    report = loaded(m, tmp_path / "q.pt")
    same(m, q)
    assert "took the state under the key 'model'" in report.did
    assert "removed the prefix 'module.'" in report.did


def test_stages(tmp_path):
    c = linger.constrain(trained(), configured(tmp_path), disable_module=(nn.Linear,))
    c.train()(images())
    linger.save(c, tmp_path / "c.pt")
    fresh = Net()
    report = loaded(fresh, tmp_path / "c.pt")
    assert isinstance(fresh.conv, NormalizeConvBN2d) and type(fresh.head) is nn.Linear
    assert fresh.conv.normalize_data == 3 and "linger.constrain" in str(report)
    same(fresh, c)
    q = linger.init(fresh)
    q.train()(images())
    linger.save(q, tmp_path / "q.pt")
    onwards = loaded(c, tmp_path / "q.pt")  # a constrained model and a quantized checkpoint
    same(c, q)
    assert "linger.init" in str(onwards)
    later = linger.init(Net(), configured(tmp_path), disable_module=(nn.Linear,))
    report = loaded(later, tmp_path / "c.pt")  # the other way nothing is converted
    assert not any("converted" in line for line in report.did)
    assert set(report.without_data) == {f"{n}.output_quantizer" for n in ("conv", "body.0", "norm")}


def test_dynamic_code_needs_no_example_inputs(tmp_path):
    q = linger.init(trained(Dynamic), example_inputs=images())
    q(images())
    linger.save(q, tmp_path / "q.pt")
    m = Dynamic()
    linger.load(m, tmp_path / "q.pt")
    same(m, q)
    assert not hasattr(m.bn, "running_mean")


def test_float_checkpoints(tmp_path):
    torch.save(trained().state_dict(), tmp_path / "f.pt")
    m = Net()
    report = loaded(m, tmp_path / "f.pt")
    assert type(m) is Net and "no record of linger" in str(report)
    q = linger.init(Net())
    report = loaded(q, tmp_path / "f.pt")
    assert "conv.output_quantizer" in report.without_data and "quantizers without data" in str(report)


def test_rebuilt_dictionaries_bind_operators_in_order(tmp_path):
    """What safetensors and many scripts leave: names and tensors, no metadata."""
    q = initialised(tmp_path)
    torch.save({k: v.clone() for k, v in q.state_dict().items()}, tmp_path / "bare.pt")
    m = linger.init(Net(), configured(tmp_path))
    report = loaded(m, tmp_path / "bare.pt")
    assert "no record of linger" in str(report)
    same(m, q)
    torch.save({"linger": torch.load(_saved(q, tmp_path), weights_only=True)["linger"], "state_dict": dict(q.state_dict())},
               tmp_path / "kept.pt")  # fmt: skip
    m = Net()
    linger.load(m, tmp_path / "kept.pt")
    same(m, q)


def _saved(model, tmp_path):
    linger.save(model, tmp_path / "saved.pt")
    return tmp_path / "saved.pt"


def test_wrapped_models_and_file_objects(tmp_path):
    q = initialised(tmp_path)
    file = io.BytesIO()
    linger.save(nn.DataParallel(q), file)
    for wrap in (nn.DataParallel, lambda m: m):
        file.seek(0)
        m = wrap(linger.init(Net(), configured(tmp_path)))
        linger.load(m, file)
        same(getattr(m, "module", m), q)
    file.seek(0)
    with pytest.raises(TypeError, match="load before wrapping the model in DataParallel"):
        linger.load(nn.DataParallel(Net()), file)


class _Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.loss = inner, nn.Linear(4, 4)

    def forward(self, x):
        return self.loss(self.inner(x))


def test_a_converted_part_of_a_model(tmp_path):
    outer = _Outer(initialised(tmp_path))
    m = _Outer(Net())
    report = loaded(m, _saved(outer, tmp_path))
    same(m, outer)
    assert isinstance(m.inner.conv, Conv2dInt) and "converted 'inner'" in str(report)


def test_what_does_not_fit_is_an_error(tmp_path):
    q = initialised(tmp_path)
    path = _saved(q, tmp_path)
    with pytest.raises(ValueError, match=r"made of another model: 'bn' is no module of this one"):
        linger.load(Plain(), path)
    with pytest.raises(ValueError, match="was not converted by linger"):
        linger.save(Net(), tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()
    with pytest.raises(TypeError, match=r"save: model must be a torch\.nn\.Module, got dict"):
        linger.save({}, tmp_path / "x.pt")
    with pytest.raises(TypeError, match=r"load: model must be a torch\.nn\.Module, got str"):
        linger.load("x", path)
    for content in ([1], {"a": 1, "state_dict": {"b": "text"}}):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(TypeError, match="holds no state dictionary"):
            linger.load(Net(), tmp_path / "x.pt")
    state = q.state_dict()
    state["head.wieght"] = state.pop("head.weight")
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(RuntimeError, match=r"nearest: 'head\.weight'"):
        linger.load(linger.init(Net(), configured(tmp_path)), tmp_path / "x.pt")
    report = loaded(linger.init(Net(), configured(tmp_path)), tmp_path / "x.pt", strict=False)
    assert (report.missing, report.unexpected) == (["head.weight"], ["head.wieght"])


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    q = initialised(tmp_path)
    path = _saved(q, tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        linger.save(q, path)
    assert path.read_bytes() == before and {p.name for p in tmp_path.iterdir()} == {"saved.pt", "config.yaml"}


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_no_code_of_a_file_runs(tmp_path):
    torch.save(OrderedDict(weight=_Attack()), tmp_path / "x.pt")
    with pytest.raises(Exception, match="is no checkpoint, or holds code, which is never run"):
        linger.load(Net(), tmp_path / "x.pt")


def test_other_settings_are_in_the_report_and_in_a_warning(tmp_path):
    path = _saved(initialised(tmp_path), tmp_path)
    with pytest.warns(UserWarning, match="qat_method: TQT in the checkpoint, MOM here"):
        report = loaded(linger.init(Net()), path)
    assert "qat_method: TQT in the checkpoint, MOM here" in str(report)


# ---- check_optimizer


def test_check_optimizer(tmp_path):
    x = images()
    m = trained()
    early = torch.optim.SGD(m.parameters(), 0.1)
    q = linger.init(m, configured(tmp_path))
    q(x)
    report = linger.check_optimizer(q, early)
    assert report and "_linger_qtensor_qadd_0.output_quantizer.learning_data" in report.missing
    assert "conv.bias" in str(report) and report.n_foreign == 6  # three BatchNorms were folded
    assert "none of the model's" in str(report) and "<p>" in report._repr_html_()
    late = torch.optim.SGD(q.parameters(), 0.1)
    for wrapped in (q, nn.DataParallel(q)):
        report = linger.check_optimizer(wrapped, late)
        assert not report and report.to_dict() == {"missing": [], "n_foreign": 0}
    assert str(report) == "every parameter that wants gradients is in an optimizer"


def test_check_optimizer_with_several_and_with_frozen_layers():
    q = linger.init(Plain(), example_inputs=images())
    for p in q.conv.parameters():
        p.requires_grad_(False)
    parts = [torch.optim.SGD(q.encoder.parameters(), 0.1), torch.optim.Adam(q.classifier.parameters())]
    assert not linger.check_optimizer(q, parts)
    assert linger.check_optimizer(q, parts[:1]).missing == [
        f"classifier.{i}.{k}" for i in (0, 2) for k in ("weight", "bias")
    ]
    with pytest.raises(TypeError, match="model must be"):
        linger.check_optimizer(parts[0], q)
    with pytest.raises(TypeError, match=r"expected torch\.optim\.Optimizer, got str"):
        linger.check_optimizer(q, "adam")


def test_no_warning_is_lost_or_made(tmp_path):
    q = initialised(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linger.load(Net(), _saved(q, tmp_path))


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "config.yaml").write_text("platform: arcs\n")
    with pytest.raises(ValueError, match=r"config\.yaml' is no checkpoint, or holds code"):
        linger.load(Net(), tmp_path / "config.yaml")


@pytest.mark.parametrize("content", [b"", b"platform: arcs", b"\x80\x04", b"[1, 2]"])
def test_what_cannot_be_loaded_leaves_no_report(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    model = Net()
    with pytest.raises((ValueError, TypeError)):
        linger.load(model, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="has loaded nothing into this model"):
        linger.load_report(model)
    with pytest.raises(TypeError, match=r"load_report: model must be a torch\.nn\.Module, got str"):
        linger.load_report("x")


@pytest.mark.parametrize("stage", [linger.constrain, linger.init])
@pytest.mark.parametrize(
    "bad", ["nothing.*: {quant_info: {weight_bits: 4}}", "platform: mars\nnowhere: {quant_info: {}}"]
)
def test_a_conversion_that_fails_leaves_the_configuration(stage, bad, tmp_path):
    good, wrong = tmp_path / "a.yaml", tmp_path / "b.yaml"
    good.write_text("platform: arcs\n")
    wrong.write_text(bad + "\n")
    linger.init(Net(), str(good))
    before = linger.settings.current()
    with pytest.raises((linger.ConfigError, ValueError)):
        stage(Net(), str(wrong))
    assert linger.settings.current() == before
    linger.config_save_to_yaml(tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    assert "nothing.*" not in text and "nowhere" not in text and "platform: arcs" in text
