"""docs/faq.md and docs/zh/faq.md: every item in both languages, and every test that they name exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"en": ROOT / "docs/faq.md", "zh": ROOT / "docs/zh/faq.md"}
ITEMS = [*(f"g{i}" for i in range(1, 7)), *(f"f{i:02d}" for i in range(1, 29)), *(f"n{i}" for i in range(1, 5))]


def names_of_tests(folder) -> set[str]:
    return {
        node.name
        for path in folder.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows(page) -> list[list[str]]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| [GN]?\d", line)]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_page_has_every_item_with_its_tests(page):
    found = [row for row in rows(page) if len(row) == 4]
    numbers = [row[0] for row in found]
    assert numbers == [*(f"G{i}" for i in range(1, 7)), *map(str, range(1, 29)), *(f"N{i}" for i in range(1, 5))]
    for item, row in zip(ITEMS, found, strict=True):
        assert re.fullmatch(rf"`test_faq_{item}_\w+`", row[3]), row
    defects = [row for row in rows(page) if len(row) == 3]
    assert [row[0] for row in defects] == list(map(str, range(1, 42)))
    known = names_of_tests(ROOT / "tests")
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    assert named - known == set()


def test_every_item_has_its_test():
    known = names_of_tests(ROOT / "tests/faq")
    assert [item for item in ITEMS if not any(name.startswith(f"test_faq_{item}_") for name in known)] == []


def test_both_languages_name_the_same_tests():
    named = [re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")) for page in PAGES.values()]
    assert named[0] == named[1]
