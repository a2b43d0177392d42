"""What is put into templates: by name, once, and bounded however often a template asks for it."""

from __future__ import annotations

from metaagentx.workflow.template import REPEATED, fill


def test_what_is_put_in_is_not_read_again() -> None:
    assert fill("{a} {b}", {"a": "{b}", "b": "1"}) == "{b} 1"


def test_a_name_without_value_stays_or_gives_way_and_other_braces_are_themselves() -> None:
    assert fill("{a} \\frac{1}{2} {}", {}) == "{a} \\frac{1}{2} {}"
    assert fill("{a} \\frac{1}{2} {}", {}, missing="") == " \\frac{1}{2} {}"


def test_a_long_text_is_put_in_whole_once_and_cannot_be_multiplied_without_bound() -> None:
    text = "x" * 2 * REPEATED
    assert fill("{a}", {"a": text}) == text
    assert len(fill("{a}" * 20_000, {"a": text})) == len(text) + REPEATED
    assert fill("{a}{a}{a}", {"a": "12"}) == "121212"
