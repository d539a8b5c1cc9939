"""What `make site` builds from: every page is in the navigation, every public name in the API reference, by its real place."""

import importlib
import re

import pytest
from pages import ROOT

import linger

DOCS = ROOT / "docs"
API = sorted((DOCS / "api").glob("*.md"))
ENTRIES = [
    (place, name)
    for page in API
    for place, name in re.findall(r"(?m)^::: (\S+)\n    options: \{heading: ([\w.]+), ", page.read_text("utf-8"))
]


def test_navigation_has_every_page():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"(?m)^ +- (\S+\.md)$", nav)
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


@pytest.mark.parametrize(("place", "name"), ENTRIES, ids=[name for _, name in ENTRIES])
def test_reference_names_the_object(place, name):
    """The heading is what users write, the place where the docstring stands."""
    module, _, attribute = place.rpartition(".")
    shown = linger
    for part in name.split(".")[1:]:
        shown = getattr(importlib.import_module(shown.__name__), part) if hasattr(shown, "__path__") else None
    assert getattr(importlib.import_module(module), attribute) is shown


def test_reference_has_every_public_name():
    entries = {name for _, name in ENTRIES}
    assert sum(page.read_text("utf-8").count("\n::: ") for page in API) == len(ENTRIES)
    public = {f"linger.{name}" for home, names in linger._NAMES.items() if "." not in home for name in names}
    public |= {f"linger.onnx.{name}" for name in importlib.import_module("linger.onnx").__all__}
    aliases = {"linger.export", "linger.onnx.check"}  # `linger.onnx.export` and `linger.check` are the names of these
    assert public - aliases - entries == set(), "a page of docs/api lacks them"
