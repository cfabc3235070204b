"""Lines of the keys in a TOML file, which `tomllib` does not report."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable

from snakepit_otel.common.validation import SettingPath

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ONE_LINE = re.compile(r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*')""")
# Up to two quotes may stand before the three that end a text of several lines.
_SEVERAL_LINES = re.compile(r'(?:"""(?:\\.|[^\\])*?"""' + r'"{0,2}' + r"|'''.*?'''" + r"'{0,2})", re.DOTALL)
_OTHER_VALUE = re.compile(r"[^,\]}#\n]+")


def toml_lines(text: str) -> dict[SettingPath, int]:
    """Return the line, from 1, of every key and of every item of an array in TOML that `tomllib` takes.

    A table that has no line of its own is path it is first named.
    """
    return _Scan(text.replace("\r\n", "\n")).document()


class _Scan:
    """One walk through a text, which is known to be TOML: what cannot be there is not looked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[SettingPath, int] = {}
        self._table_counts: dict[SettingPath, int] = {}  # of each array of tables, so far

    def document(self) -> dict[SettingPath, int]:
        table: SettingPath = ()
        while self._skip(_BLANK_LINES) < len(self._text):
            if self._take("[["):
                table = self._header(of_array=True)
            elif self._take("["):
                table = self._header(of_array=False)
            else:
                self._pair(table)
        return self._lines

    def _header(self, *, of_array: bool) -> SettingPath:
        line = self._line()
        *groups, name = self._key()
        self._at = self._text.index("]", self._at) + (2 if of_array else 1)
        table: SettingPath = ()
        for group in groups:
            table = self._newest((*table, group), line)
        table = (*table, name)
        if of_array:
            self._table_counts[table] = self._table_counts.get(table, 0) + 1
        return self._newest(table, line)

    def _newest(self, table: SettingPath, line: int) -> SettingPath:
        """The table itself or, of an array of tables, its newest."""
        self._lines.setdefault(table, line)
        if table in self._table_counts:
            table = (*table, self._table_counts[table] - 1)
            self._lines.setdefault(table, line)
        return table

    def _pair(self, table: SettingPath) -> None:
        line = self._line()
        for part in self._key():
            table = (*table, part)
            self._lines.setdefault(table, line)
        self._skip(_BLANK)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(table)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            bare = _BARE_KEY.match(self._text, self._at)
            if bare:
                self._at = bare.end()
                parts.append(bare[0])
            else:
                start = self._at
                quoted = self._text[start : self._skip(_ONE_LINE)]
                parts.append(str(tomllib.loads(f"key = {quoted}")["key"]))
            self._skip(_BLANK)
            if not self._take("."):
                return parts

    def _value(self, path: SettingPath) -> None:
        if self._take("["):
            self._sequence("]", lambda number: self._item(path, number))
        elif self._take("{"):
            self._sequence("}", lambda _: self._pair(path))
        else:
            # Texts of several lines first: to the others, their beginning is an empty text.
            start = self._at
            if self._skip(_SEVERAL_LINES) == start and self._skip(_ONE_LINE) == start:
                self._skip(_OTHER_VALUE)

    def _item(self, path: SettingPath, number: int) -> None:
        self._lines[*path, number] = self._line()
        self._value((*path, number))

    def _sequence(self, end: str, one: Callable[[int], None]) -> None:
        number = 0
        while True:
            self._skip(_BLANK_LINES)
            if self._take(end):
                return
            one(number)
            number += 1
            self._skip(_BLANK_LINES)
            self._take(",")

    def _line(self) -> int:
        return bisect_right(self._line_ends, self._at - 1) + 1

    def _skip(self, what: re.Pattern[str]) -> int:
        match = what.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _take(self, what: str) -> bool:
        found = self._text.startswith(what, self._at)
        self._at += len(what) if found else 0
        return found
