"""The configuration reference is what the command writes, and no key or rule lacks a language."""

import re
import subprocess
import sys

import pytest
from pages import CHINESE, ENGLISH

from linger.settings import document, rules, schema, write
from linger.settings.document import configuration_page

PAGES = {"en": ENGLISH / "configuration.md", "zh": CHINESE / "configuration.md"}
KEYS = {*rules.TOP, "operators", "mix_parts", "clamp_info", "quant_info"}
KEYS |= {f"clamp_info.{key}" for key in rules.CLAMP} | {f"quant_info.{key}" for key in rules.SECTION_QUANT}


@pytest.mark.parametrize("language", PAGES)
def test_page_is_what_the_command_writes(language):
    written = configuration_page(language)
    assert PAGES[language].read_text("utf-8") == written, "run: make docs"


def test_the_command_writes_the_page():
    out = subprocess.run([sys.executable, "-m", "linger.settings", "zh"], capture_output=True, check=True, timeout=60)
    assert out.stdout.decode() == configuration_page("zh")


def test_every_key_has_both_languages():
    assert set(document.CHINESE) == KEYS | {"name"}
    assert {**write.COMMENTS, **document.SECTION_COMMENTS}.keys() == KEYS | {"name"}


def test_keys_are_those_of_the_schema():
    fields = schema.Settings.__dataclass_fields__.keys() - {"sections", "file", "explicit", "marks"}
    parts = {f"{part}.{key}" for part, kind in (("clamp_info", schema.ClampInfo), ("quant_info", schema.QuantInfo))
             for key in kind.__dataclass_fields__}  # fmt: skip
    assert fields | parts == KEYS


SENTENCE = set("a an the as such from to of that only is in with".split())  # words of rules that are more than lists
PLAIN = set("or a the and of in that this key before model trained existed method name width".split())


def test_every_rule_that_is_a_sentence_has_its_translation():
    for rule in (rule for table in (rules.TOP, rules.CLAMP, rules.SECTION_QUANT) for rule in table.values()):
        said = rule.expected
        listed = not SENTENCE & set(re.findall(r"[a-z]+", said))
        assert listed or said in document.CHINESE_RULES, f"CHINESE_RULES of settings/document.py lacks {said!r}"


@pytest.mark.parametrize("key", sorted(KEYS))
def test_chinese_names_the_values_that_english_names(key):
    """So that a translation is not left behind when a choice is added."""
    english = {**write.COMMENTS, **document.SECTION_COMMENTS}[key]
    rule = {**rules.TOP, **{f"quant_info.{k}": r for k, r in rules.SECTION_QUANT.items()}}.get(key)
    values = set(re.findall(r"[\w.]+", english)) & set(re.findall(r"[\w.]+", rule.expected if rule else ""))
    assert {name for name in values - PLAIN if name not in document.CHINESE[key]} == set()


@pytest.mark.parametrize("language", PAGES)
def test_page_names_every_key(language):
    text = configuration_page(language)
    for key in KEYS:
        assert f"`{key.rpartition('.')[2]}`" in text
