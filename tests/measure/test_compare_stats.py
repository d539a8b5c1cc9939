"""``linger.compare_stats``: drift in bits against the stored ranges, the model untouched."""

import copy

import pytest
import torch
from torch import nn

import linger


def made(method="MOM"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    linger.QUANT_CONFIGS.quant_info.qat_method = method
    return linger.init(net), torch.randn(512, 8)


def kept(model):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return state, [(m.training, len(m._forward_hooks)) for m in model.modules()], torch.random.get_rng_state()


@pytest.mark.parametrize("method", ["MOM", "TQT"])
def test_inputs_four_times_as_large_have_drifted_by_two_bits(method):
    model, x = made(method)
    with linger.calibration():
        model(x)
    state, modes, rng = kept(model)
    report = linger.compare_stats(model, (4 * b for b in x.split(512)))
    assert (report.rows[0].layer, report.rows[0].tensor, report.rows[0].bits) == ("0", "input", 2.0)
    assert report.largest == report.rows[0] and "0 input has drifted by +2.0 bits" in str(report)
    assert "saturates" in str(report) and max(map(len, str(report).splitlines())) <= 100
    after, modes_after, rng_after = kept(model)
    assert all(torch.equal(state[k], after[k]) for k in state) and modes == modes_after and torch.equal(rng, rng_after)
    assert [r.bits for r in linger.compare_stats(model, x).rows] == [0.0] * 3
    assert "fit the stored ranges" in str(linger.compare_stats(model, x))


def test_ranges_of_training_are_compared_as_training_takes_them():
    model, x = made()
    for batch in x.split(64):
        model(batch)
    report = linger.compare_stats(model, [{"input": 4 * b} for b in x.split(64)])
    assert report.rows[0].bits == pytest.approx(2.0, abs=0.1) and report.batches == 8
    assert report.to_dict()["rows"][0]["stored"] == pytest.approx(float(model[0].input_quantizer.running_data))


def test_what_has_no_range_is_said():
    model, x = made()
    report = linger.compare_stats(model, x)
    assert [r.bits for r in report.rows] == [None] * 3 and "no data" in str(report)


def test_errors():
    model, x = made()
    with pytest.raises(TypeError, match="model must be"):
        linger.compare_stats(x, model)
    with pytest.raises(ValueError, match=r"compare_stats: the model is not quantized: call linger.init first"):
        linger.compare_stats(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match="gave no batch"):
        linger.compare_stats(model, [])
    with pytest.raises(TypeError, match="batches must be a tensor"):
        linger.compare_stats(model, 3)
    assert not copy.deepcopy(model)[0].input_quantizer.ready
