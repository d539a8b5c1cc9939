"""``linger.check`` of a float network foretells what export refuses of the trained one, and what stays in float."""

import pytest

import linger
from tests.nn.zoo import batch
from tests.nn.zoo_nets import NETS


@pytest.mark.parametrize("platform", ["arcs", "venusA", "venus"])
@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_check_foretells_the_file(net, platform):
    report = linger.check(net(), platform, batch(net, 1))
    refused = [str(v) for v in report if v.refused]
    expected = getattr(net, "refused", {}).get(platform)
    assert (expected is not None) == bool(refused) and all(expected in text for text in refused)
    floats = {v.value.lower() for v in report if v.what == "float operator"}
    assert floats == set(getattr(net, "islands", {}).get(platform, ()))
