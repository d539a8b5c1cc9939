"""The tag of a quantized tensor never lies."""

import copy

import torch

from linger.runtime import Format, codes, follow, info, is_quantized, tag, untag


def _tagged(values=(0.5, -1.0, 1.25), scale=4.0):
    t = torch.tensor(values)
    return tag(t, Format(torch.tensor(scale), 8))


def test_tag_gives_the_format_back():
    t = _tagged()
    fmt = info(t)
    assert fmt is not None
    assert fmt.bits == 8
    assert float(fmt.scale) == 4.0
    assert is_quantized(t)


def test_codes_are_recovered_exactly():
    t = _tagged()
    assert codes(t, info(t)).tolist() == [2, -4, 5]
    assert codes(t, info(t)).dtype == torch.int8


def test_an_unhandled_in_place_write_drops_the_tag():
    t = _tagged()
    t.mul_(1.1)
    assert info(t) is None


def test_a_write_through_a_view_drops_the_tag():
    t = _tagged()
    t[:1].zero_()
    assert info(t) is None


def test_copies_do_not_carry_a_format():
    t = _tagged()
    assert info(copy.deepcopy(t)) is None
    assert info(t.clone()) is None
    assert info("text") is None


def test_saved_tensors_load_anywhere(tmp_path):
    path = tmp_path / "features.pt"
    torch.save(_tagged(), path)
    assert b"linger." not in path.read_bytes()  # a machine without linger can read it
    t = torch.load(path, weights_only=True)
    assert t.tolist() == [0.5, -1.0, 1.25]
    assert info(t) is None
    assert info(tag(t, Format(torch.tensor(4.0), 8))) is not None
    t.add_(1)
    assert info(follow(t, t)) is None


def test_untag_forgets():
    t = _tagged()
    untag(t)
    untag(t)
    assert info(t) is None


def test_follow_keeps_scale_and_bits_without_codes():
    t = _tagged()
    u = follow(t.relu(), t)
    assert float(info(u).scale) == 4.0
    assert codes(u, info(u)).tolist() == [2, 0, 5]


def test_inference_tensors_can_be_tagged():
    with torch.inference_mode():
        t = _tagged()
        assert is_quantized(t)


def test_a_calibrating_format_is_no_integer():
    t = tag(torch.ones(2), Format(torch.tensor(1.0), 8, exact=False))
    assert info(t) is not None
    assert not is_quantized(t)
