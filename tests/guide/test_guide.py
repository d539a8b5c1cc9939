"""The guide in both languages: every block runs, and a Chinese page is its English twin, block for block."""

import re

import pytest
import torch
from pages import CHINESE, ENGLISH, ROOT, blocks, run, without_comments

import linger

NAMES = sorted(page.name for page in ENGLISH.glob("*.md"))
COMMANDS = "sh"


@pytest.fixture(autouse=True)
def reader(tmp_path, monkeypatch):
    """An empty working folder, the defaults, and everything put back."""
    before = linger.settings.current()
    monkeypatch.chdir(tmp_path)
    linger.settings.use(linger.settings.Settings(device="cpu"))
    torch.manual_seed(0)
    yield tmp_path
    linger.settings.use(before)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_run(name, reader):
    run(ENGLISH / name, reader)


def test_both_languages_have_the_same_pages():
    assert sorted(page.name for page in CHINESE.glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_chinese_page_has_the_same_blocks(name):
    """What differs is prose and comments; so the English page's run is the Chinese one's too."""
    english, chinese = blocks(ENGLISH / name), blocks(CHINESE / name)
    assert [(b.language, b.title) for b in english] == [(b.language, b.title) for b in chinese]
    for mine, other in zip(english, chinese, strict=True):
        assert without_comments(mine) == without_comments(other), f"{name}: lines {mine.line} and {other.line}"


@pytest.mark.parametrize("name", NAMES)
def test_chinese_page_has_the_same_sections(name):
    def levels(page):
        return [
            len(mark) for mark in re.findall(r"(?m)^(#+) ", re.sub(r"(?ms)^```.*?^```$", "", page.read_text("utf-8")))
        ]

    assert levels(ENGLISH / name) == levels(CHINESE / name)


@pytest.mark.parametrize("name", NAMES)
def test_chinese_paragraphs_are_one_line_each(name):
    """A browser shows the end of a line as a space, which Chinese has not."""
    prose = re.sub(r"(?ms)^```.*?^```$", "", (CHINESE / name).read_text("utf-8"))
    broken = re.findall(r"(?m)^(?![|#]).*[\u3001-\uffef]\n(?=[\u3001-\uffef`\[])", prose)
    assert broken == []


@pytest.mark.parametrize("page", [folder / name for folder in (ENGLISH, CHINESE) for name in NAMES], ids=str)
def test_blocks_have_a_language_that_is_checked(page):
    kinds = {block.language for block in blocks(page)}
    assert kinds <= {"python", "text", "yaml", COMMANDS}, f"blocks of {kinds} are run by nobody"


def test_commands_exist():
    """Commands cannot all be run here, for they install; what they name is there."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = set(re.findall(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8")))
    for page in [*ENGLISH.glob("*.md"), *CHINESE.glob("*.md")]:
        for block in blocks(page):
            for line in block.code.splitlines() if block.language == COMMANDS else []:
                words = line.partition("#")[0].split()
                match words:
                    case []:
                        pass
                    case ["make", target]:
                        assert re.search(rf"(?m)^{re.escape(target)}:", makefile), line
                    case ["python", script, *_] if script.endswith(".py"):
                        assert (ROOT / script).is_file(), line
                    case ["python", "-m", module, *_]:
                        assert module == "venv" or (ROOT / module.replace(".", "/") / "__main__.py").is_file(), line
                    case ["pip", "install", *what]:
                        for extra in re.findall(r"\[(\w+)\]", " ".join(what)):
                            assert extra in extras, line
                    case ["linger", *_] if block.code.startswith("linger "):
                        pass  # pages.run has run it
                    case ["apt", "install", *_] | ["source", _] | ["git", "clone", *_] | ["bash", "tests/gpu/run.sh"]:
                        pass
                    case _:
                        raise AssertionError(f"{page.name}: nobody checks the command {line!r}")


@pytest.mark.parametrize("page", [folder / name for folder in (ENGLISH, CHINESE) for name in NAMES], ids=str)
def test_links_lead_somewhere(page):
    """Files and headings that the page links to exist."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"(?m)^#+ (.*?)(?: *\{ *#([\w-]+) *\})?$", file.read_text("utf-8"))
            anchors = {own or slug(head) for head, own in heads}
            assert anchor in anchors, f"{page.name}: {target}; there are {sorted(anchors)}"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-")
