"""docs/operators.md is what the tables say."""

from pathlib import Path

from linger.chip import LIMITS, OPERATORS, PLATFORMS
from linger.chip.document import operators_page

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == operators_page(), "run: python -m linger.chip > docs/operators.md"


def test_every_operator_has_a_cell_for_every_chip():
    assert set(PLATFORMS) == set(LIMITS)
    for name, row in OPERATORS.items():
        for platform in PLATFORMS:
            assert row[platform].kind in ("native", "rewrite", "island", "refused")
            assert row[platform].note or row[platform].kind == "native", f"{name} on {platform}: say why"
        assert row["mars"] == row["arcs"]
