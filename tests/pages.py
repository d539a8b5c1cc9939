"""Pages of the guide: their code blocks, and running them as a reader would, in order and in one namespace.

A `python` block runs, and so does a `sh` block of `linger` commands. A `text` block behind it is what it prints (`...` stands for
anything). A block with a title, as ```yaml title="config.yaml"```, is a file of that name; other `yaml` blocks are
configurations that load.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import linger
from linger import command_line

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "docs" / "guide", ROOT / "docs" / "zh" / "guide"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: language, title (a file's name) or empty, text, line of its first line in the page."""

    language: str
    title: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(language, title[1] if title else "", match["code"], line))
    return found


def without_comments(block: Block) -> str:
    """A block without what a translation may change."""
    if block.language == "python":
        return ast.dump(ast.parse(block.code))
    if block.language == "yaml":
        return repr(linger.settings.loads(block.code))
    return re.sub(r"(?m)\s*#.*$", "", block.code)


def run(page: Path, folder: Path) -> None:
    """Runs a page's blocks in a folder, which is the current one, and compares what they print.

    The blocks are the script `model.py` of a reader who copies them one by one: messages name its lines.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    script, printed = "", ""
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "yaml":
            linger.settings.loads(block.code)
        elif block.language == "python":
            source = "\n" * script.count("\n") + block.code
            script += block.code
            (folder / "model.py").write_text(script, encoding="utf-8")
            out = io.StringIO()
            try:
                with contextlib.redirect_stdout(out):
                    exec(compile(source, "model.py", "exec"), names)
            except Exception as error:
                raise AssertionError(f"{page.name}, block at line {block.line}: {error!r}") from error
            printed = out.getvalue()
        elif block.language == "sh" and block.code.startswith("linger "):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                for line in block.code.splitlines():
                    assert command_line.main(shlex.split(line)[1:]) == 0, f"{page.name}: {line}"
            printed = out.getvalue()
        elif block.language == "text":
            same = doctest.OutputChecker().check_output(block.code, printed, FLAGS)
            assert same, f"{page.name}, line {block.line}: the page says\n{block.code}\nprinted was\n{printed}"
