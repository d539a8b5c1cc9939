"""The page of errors names what the code says: every row is in the source, every message of the source has a row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import CHINESE, ENGLISH, ROOT

PAGES = [folder / "errors.md" for folder in (ENGLISH, CHINESE)]
SOURCES = sorted((ROOT / "linger").rglob("*.py"))
ERRORS = """ValueError TypeError RuntimeError AttributeError ImportError LookupError KeyError NotImplementedError OSError
    FileNotFoundError IsADirectoryError FileExistsError UnsupportedError ExportError ModelError InputError TooLarge ConfigError
    config_error""".split()
SAYS = {"_log.warning", "logger.warning", "warnings.warn"}
HOLE = "…"  # stands for what a message fills in
FEW = 10  # a message with fewer letters of its own says what another function gives it


def text_of(node: ast.expr | None) -> str | None:
    """A message as its page shows it; None where it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%[-.\d]*[a-z]", HOLE, text).replace("%%", "%")
        case ast.JoinedStr(values=parts):
            return "".join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (text_of(left) or HOLE) + (text_of(right) or HOLE)
        case ast.IfExp(body=body):
            return text_of(body)
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return (text_of(value) or HOLE).replace("{}", HOLE)
    return None


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def messages(path: Path) -> Iterator[tuple[str, int]]:
    """What a file raises and warns, with lines."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(call, ast.Call) and (isinstance(node, ast.Raise) or ast.unparse(call.func) in SAYS):
            name = ast.unparse(call.func)
            text = text_of(call.args[0]) if call.args else None
            if text is not None and (name in ERRORS or name in SAYS):
                yield in_one_line(text), call.lineno


def texts(path: Path) -> Iterator[str]:
    """Every string of a file: rows are looked for in them."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
            text = text_of(node)
            if text:
                yield in_one_line(text)


def rows(page: Path) -> list[str]:
    """The messages of a page: a list item starts with one."""
    return [code or plain for code, plain in re.findall(r"(?m)^\* (?:`` (.+?) ``|`([^`]+)`)", page.read_text("utf-8"))]


def says(text: str, row: str, anywhere: bool = False) -> bool:
    """Whether a text begins as a row does; ``anywhere``: whether it contains it."""
    first, *others = row.split(HOLE)
    at = text.find(first)
    if at < 0 or (at and not anywhere):
        return False
    at += len(first)
    for part in others:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def letters(row: str) -> int:
    return len(re.findall(r"[a-zA-Z]", row.replace(HOLE, "")))


def test_both_languages_have_the_same_rows():
    english, chinese = map(rows, PAGES)
    assert len(english) > 100
    assert english == chinese


def test_every_row_is_in_the_source():
    said = {text for path in SOURCES for text in texts(path)}
    native = " ".join(p.read_text("utf-8") for p in (ROOT / "csrc" / "config").glob("*.c"))
    for row in rows(PAGES[0]):
        found = any(says(text, row, anywhere=True) for text in said)
        found = found or all(part.strip() in native for part in row.split(HOLE) if part.strip())
        assert found, f"nothing says {row!r}: take it off the page"


@pytest.mark.parametrize("package", sorted({p.relative_to(ROOT).parts[1] for p in SOURCES}))
def test_every_message_has_a_row(package):
    known = [row for row in rows(PAGES[0]) if letters(row) >= FEW or "must" in row or "expected" in row]
    lacking = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[1] == package:
            lacking += [f"{path.relative_to(ROOT)}:{line}: {text}" for text, line in messages(path)
                        if letters(text) >= FEW and not any(says(text, row) for row in known)]  # fmt: skip
    assert not lacking, "docs/guide/errors.md and its Chinese twin lack, with what helps:\n" + "\n".join(lacking)
