"""Text of peers is shown as text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.common.printable import (
    MAX_NAME_CHARACTERS,
    printable,
    printable_error,
    printable_json,
    printable_lines,
)
from tests.hostile_text import HOSTILE, is_control, unsafe

ANYTHING = st.text(st.characters(codec=None))
"""Lone surrogates as well."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web", "web"),
        ("cart[/]7 [red]", "cart[/]7 [red]"),
        ("Zoë 日本語 עברית 👩 naïve\xa0x", "Zoë 日本語 עברית 👩 naïve\xa0x"),
        ("\x1b[2J\x9b\x7f\x00", "\\x1b[2J\\x9b\\x7f\\x00"),
        ("a\nb\r\n\tc", "a\\nb\\r\\n\\tc"),
        ("\u202egpj\u2066\u200e\u061c", "\\u202egpj\\u2066\\u200e\\u061c"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("w\u200deb\ufe0f\u3164", "w\\u200deb\\ufe0f\\u3164"),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(text: str, shown: str) -> None:
    """Escapes say what was there; everything that can be seen is as it was."""
    assert printable(text) == shown


@given(ANYTHING)
def test_a_name_is_one_line_of_what_can_be_seen(text: str) -> None:
    """Whatever it was, nothing of it drives a terminal, and it is encodable and bounded."""
    shown = printable(text)
    assert not unsafe(shown, lines=False)
    assert shown.splitlines() in ([shown], [])
    assert len(shown) <= MAX_NAME_CHARACTERS
    shown.encode()
    assert printable(shown) == shown


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs")).filter(lambda char: printable(char) == char)))
def test_what_can_be_seen_stays(text: str) -> None:
    """Letters, marks and signs of every language are shown as they are."""
    assert printable(text, None) == text


@given(ANYTHING)
def test_lines_stay_lines(text: str) -> None:
    """Text of several lines keeps them and its tabs; all that follow the first begin with the indent."""
    shown = printable_lines(text, "> ")
    _, *rest = shown.split("\n")
    assert all(line.startswith("> ") for line in rest)
    assert len(rest) == text.count("\n")
    joined = {"\u200c", "\u200d"}
    assert unsafe(shown) <= {"\t", *joined}


def test_letters_are_joined_in_text_alone() -> None:
    """What joins letters and emoji is part of a text, and a disguise in a name."""
    family = "👨\u200d👩\u200d👧 ❤\ufe0f"
    assert printable_lines(family) == family
    assert "\\u200d" in printable(family)


@given(
    st.recursive(ANYTHING | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(ANYTHING, inner))
)
def test_json_keeps_its_values(value: object) -> None:
    """A document with its texts made visible says the same as before."""
    document = printable_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(document) == json.loads(json.dumps(value))
    assert unsafe(document) <= {"\u200c", "\u200d"}
    document.encode()


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_error_without_words_is_named() -> None:
    """An error whose own message raises is shown by its type."""
    assert printable(_Unspeakable()) == "<_Unspeakable>"
    assert printable_error(_Unspeakable()) == "_Unspeakable: <_Unspeakable>"
    assert printable_error(ValueError("a\nb")) == "ValueError: a\\nb"


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_cut_says_so(name: str) -> None:
    """A name that is too long ends in an ellipsis, and one that is not is whole."""
    shown = printable(HOSTILE[name], 50)
    assert len(shown) <= 50
    assert shown.endswith("…") == (len(printable(HOSTILE[name], None)) > 50)


def test_every_control_character_is_known() -> None:
    """None of all that there are in Unicode is left where text is one line."""
    for code in range(0x110000):
        char = chr(code)
        if is_control(char):
            assert printable(char) != char, hex(code)
