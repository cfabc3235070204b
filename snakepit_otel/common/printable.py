"""Text from peers, made safe for log lines and terminals.

Session ids, owners, metadata, state, tool names, results and errors are written by peers. Printed as they are, they
could colour a terminal, set its title, reverse the order of letters, or forge a line of the log.
"""

from __future__ import annotations

import re
from typing import Final

MAX_NAME_CHARACTERS: Final = 200
MAX_MESSAGE_CHARACTERS: Final = 1_000

# Control characters, separators of lines, lone surrogates and annotations; and what Unicode has invisible by default,
# the controls of direction among it.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
# Join letters and choose the looks of emoji: part of many languages' text, and a disguise in a name.
_JOINING = "\u200c\u200d\ufe00-\ufe0f"
_NOT_IN_A_NAME = re.compile(f"[{_UNSEEN}{_JOINING}]")
_NOT_IN_TEXT = re.compile(f"[{_UNSEEN}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(value: object, limit: int | None = MAX_NAME_CHARACTERS) -> str:
    r"""Return `str(value)` for one line: invisible characters as escapes (`\x1b`, `\u202e`), cut after `limit`."""
    text = _text(value)
    if limit is None:
        return _NOT_IN_A_NAME.sub(_escaped, text)
    text = _NOT_IN_A_NAME.sub(_escaped, text[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def printable_error(error: BaseException) -> str:
    """Return an error's type and message, for one line."""
    return printable(f"{type(error).__name__}: {_text(error)}", MAX_MESSAGE_CHARACTERS)


def printable_lines(value: object, indent: str = "") -> str:
    """Return `str(value)` with its lines and tabs as they are; lines after the first begin with `indent`."""
    lines = _text(value).replace("\r\n", "\n").split("\n")
    return f"\n{indent}".join(
        "\t".join(_NOT_IN_TEXT.sub(_escaped, part) for part in line.split("\t")) for line in lines
    )


def printable_json(document: str) -> str:
    r"""Return a JSON document with invisible characters as JSON escapes, which leaves its values unchanged."""
    # In JSON all of these are inside of texts, but for the line breaks between values.
    return "\n".join(_NOT_IN_TEXT.sub(_escaped_in_json, line) for line in document.split("\n"))


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException:  # noqa: BLE001 - an error of user code, whose `__str__` may raise anything
        return f"<{type(value).__name__}>"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"


def _escaped_in_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
