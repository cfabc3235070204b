"""Text as somebody would send it who wants to be believed, and what no line for people may have."""

from __future__ import annotations

import unicodedata

HOSTILE = {
    "markup": "[bold red]web[/]",
    "closing markup": "cart[/]7",
    "a link": "[link=http://example.invalid]here[/link]",
    "an emoji's code": ":warning: [:skull:]",
    "backslashes": "\\[bold]\\",
    "a title": "\x1b]0;mine\x07",
    "a hyperlink": "\x1b]8;;http://example.invalid\x1b\\here\x1b]8;;\x1b\\",
    "a cleared screen": "\x1b[2J\x1b[H",
    "colours by one byte": "\x9b31mred\x9b0m\x90q\x9c",
    "a bell and a backspace": "\x07rm\x08\x08ls\x7f\x00",
    "another line": "web\n2026-01-01 00:00:00 ERROR snakepit_otel: forged",
    "another line by other means": "web\r\nforged\x0bforged\x0cforged\x85forged\u2028forged\u2029forged",
    "a line over this one": "web\rforged",
    "turned round": "\u202egnp.exe\u202c\u2066x\u2069\u200f\u061c",
    "nothing to be seen": "w\u200be\u2060b\ufeff\u00ad\u115f\u3164\U000e0041",
    "half of a character": "\ud800web\udfff",
    "very long": "x" * 5_000,
    "very long when escaped": "\x1b" * 5_000,
    "tabs": "a\tb\t\tc",
}
"""By what it would do."""


_VISIBLE = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Signs over numbers, which Unicode has among the controls of format."""


def unsafe(text: str, *, lines: bool = True) -> set[str]:
    """Return the characters of what people read that are not to be in it."""
    return {char for char in text if is_control(char) and not (lines and char == "\n")}


def is_control(char: str) -> bool:
    """Say whether a character is there for what it does to others, and not to be seen."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _VISIBLE
