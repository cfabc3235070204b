"""Kinds of values that environment variables have: how each is read, and how the SDK wants it written."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

from snakepit_otel.telemetry.environment.components import is_provided

MOST = 2**31 - 1
"""Larger numbers end in an OverflowError somewhere in the SDK, or in the interpreter."""
ONE_DAY_MS = 86_400_000


class Unfit(Exception):
    """A value that cannot be taken as it is; `usable` is what can be taken of it, if anything."""

    def __init__(self, reason: str, usable: Any = None) -> None:
        super().__init__(reason)
        self.usable = usable


class Kind(Protocol):
    """A kind of value."""

    @property
    def code(self) -> str:
        """What the doctor calls a value of this kind that is wrong."""
        ...

    def read(self, text: str) -> Any:
        """Return the value of a text that is not blank. Raises `Unfit`."""
        ...

    def write(self, value: Any) -> str:
        """Return the one spelling of a value that the SDK takes."""
        ...


@dataclass(frozen=True)
class Text:
    """Any text."""

    code: str = "bad_value"

    def read(self, text: str) -> str:
        """See `Kind`. Bytes that are no UTF-8 would make every export impossible to encode."""
        usable = readable(text)
        if usable != text:
            raise Unfit("has bytes that are no UTF-8", usable)
        return text

    def write(self, value: str) -> str:
        """See `Kind`."""
        return value


@dataclass(frozen=True)
class Flag:
    """True or false, in upper or lower case."""

    code: str = "bad_value"

    def read(self, text: str) -> bool:
        """See `Kind`."""
        if text.lower() not in ("true", "false"):
            raise Unfit("is neither true nor false")
        return text.lower() == "true"

    def write(self, value: bool) -> str:
        """See `Kind`."""
        return "true" if value else "false"


@dataclass(frozen=True)
class Switch:
    """On or off, in the words that upstream has for it."""

    code: str = "bad_value"

    def read(self, text: str) -> bool:
        """See `Kind`."""
        if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise Unfit("is none of 1, true, yes, on, 0, false, no, off")
        return text.lower() in ("1", "true", "yes", "on")

    def write(self, value: bool) -> str:
        """See `Kind`."""
        return "1" if value else "0"


@dataclass(frozen=True)
class Word:
    """One of some words, in upper or lower case; `unsupported` are legal ones that have no implementation."""

    words: tuple[str, ...]
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Each with what is taken in its place."""
    code: str = "bad_value"

    def read(self, text: str) -> str:
        """See `Kind`."""
        word = text.lower()
        if word in self.unsupported:
            raise Unfit("is not supported", self.unsupported[word])
        if word not in self.words:
            raise Unfit(f"is none of {', '.join(self.words)}")
        return word

    def write(self, value: str) -> str:
        """See `Kind`."""
        return value


@dataclass(frozen=True)
class Whole:
    """A whole number in a range; one that is too large counts as the largest."""

    least: int = 0
    most: int = MOST
    negative: bool = False
    """Whether one below zero counts as zero."""
    code: str = "bad_value"

    def read(self, text: str) -> int:
        """See `Kind`."""
        if self.negative and re.fullmatch(r"-[0-9]+", text):
            raise Unfit("is below 0", 0)
        if not re.fullmatch(r"\+?[0-9]+", text):
            raise Unfit(f"is not a whole number from {self.least}")
        digits = text.lstrip("+0") or "0"
        # Python itself refuses to read thousands of digits.
        if len(digits) > len(str(self.most)) or int(digits) > self.most:
            raise Unfit(f"is more than {self.most}", self.most)
        if int(digits) < self.least:
            raise Unfit(f"is not a whole number from {self.least}")
        return int(digits)

    def write(self, value: int) -> str:
        """See `Kind`."""
        return str(value)


@dataclass(frozen=True)
class Number:
    """A number above zero, with or without a fraction; one that is too large counts as the largest."""

    most: float
    unit: str
    least: float = 0.0
    zero: bool = False
    """Whether zero will do."""
    code: str = "bad_value"

    def read(self, text: str) -> float:
        """See `Kind`."""
        wanted = f"a number from 0 to {self.most:g}" if self.zero else f"a number of {self.unit} above 0"
        try:
            number = float(text)
        except ValueError:
            raise Unfit(f"is not {wanted}") from None
        if math.isnan(number) or number < 0 or (number == 0 and not self.zero):
            raise Unfit(f"is not {wanted}")
        if number > self.most:
            raise (
                Unfit(f"is not {wanted}") if self.zero else Unfit(f"is more than {self.most:g} {self.unit}", self.most)
            )
        return number

    def write(self, value: float) -> str:
        """See `Kind`."""
        return repr(value)


@dataclass(frozen=True)
class Component:
    """The name of something that an installed package provides, as an entry point of a group."""

    group: str
    own: tuple[str, ...] = ()
    """Names that are there without asking the installed packages."""
    code: str = "bad_value"

    def read(self, text: str) -> str:
        """See `Kind`."""
        found = named(text, self.group, self.own)
        if found is None:
            raise Unfit("is provided by no installed package")
        return found

    def write(self, value: str) -> str:
        """See `Kind`."""
        return value


@dataclass(frozen=True)
class Components:
    """A list of such names, with commas between them; each counts once."""

    group: str
    own: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    alone: str = ""
    """The name that takes the place of all others."""
    code: str = "bad_value"

    def read(self, text: str) -> tuple[str, ...]:
        """See `Kind`."""
        given = [name.strip() for name in text.split(",") if name.strip()]
        if self.alone and self.alone in (name.lower() for name in given):
            return (self.alone,)
        found = {name: named(self.aliases.get(name.lower(), name), self.group, self.own) for name in given}
        usable = tuple(dict.fromkeys(name for name in found.values() if name is not None))
        missing = [repr(readable(name)[:40]) for name, provided in found.items() if provided is None]
        if missing:
            raise Unfit(f"has {', '.join(missing[:5])}, provided by no installed package", usable or None)
        if not usable:
            raise Unfit("names nothing")
        return usable

    def write(self, value: tuple[str, ...]) -> str:
        """See `Kind`."""
        return ",".join(value)


@dataclass(frozen=True)
class File:
    """The path of a file that can be read."""

    code: str = "missing_file"

    def read(self, text: str) -> str:
        """See `Kind`."""
        try:
            with Path(text).open("rb") as file:
                empty = not file.read(1)
        except (OSError, ValueError) as error:
            raise Unfit(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
        if empty:
            raise Unfit("is an empty file")
        return text

    def write(self, value: str) -> str:
        """See `Kind`."""
        return value


@dataclass(frozen=True)
class Attributes:
    """Pairs of name=value with commas between them, percent-encoded where need be."""

    code: str = "bad_value"

    def read(self, text: str) -> dict[str, str]:
        """See `Kind`."""
        pairs, wrong = {}, []
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for number, entry in enumerate(entries, 1):
            name, equals, value = entry.partition("=")
            name, value = name.strip(), unquote(value.strip())
            if not equals or not name or readable(name + value) != name + value:
                wrong.append(str(number))
            else:
                pairs[name] = value
        if wrong:
            raise Unfit(
                f"has entries that are not name=value ({', '.join(wrong[:9])} of {len(entries)})", pairs or None
            )
        return pairs

    def write(self, value: dict[str, str]) -> str:
        """See `Kind`."""
        return ",".join(f"{name}={quote(of, safe='')}" for name, of in value.items())


@dataclass(frozen=True)
class Headers:
    """Pairs of name=value that gRPC and HTTP can send."""

    code: str = "bad_header"

    def read(self, text: str) -> dict[str, str]:
        """See `Kind`."""
        pairs, wrong = {}, []
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for number, entry in enumerate(entries, 1):
            name, equals, value = entry.partition("=")
            name, value = unquote(name).strip().lower(), unquote(value).strip()
            # A binary header of gRPC takes bytes, which no variable has.
            sendable = (
                re.fullmatch(r"[a-z0-9_.-]+", name) and not name.endswith("-bin") and not name.startswith("grpc-")
            )
            if not equals or not sendable or not re.fullmatch(r"[ -~]*", value):
                wrong.append(str(number))
            else:
                pairs[name] = value
        if wrong:
            raise Unfit(f"has entries that are no headers ({', '.join(wrong[:9])} of {len(entries)})", pairs or None)
        return pairs

    def write(self, value: dict[str, str]) -> str:
        """See `Kind`."""
        return ",".join(f"{name}={quote(of, safe='')}" for name, of in value.items())


@dataclass(frozen=True)
class LogLevel:
    """A level of `logging`, by name or number; `none` is above all of them."""

    code: str = "bad_value"

    def read(self, text: str) -> int:
        """See `Kind`."""
        word = text.upper()
        if word in ("NONE", "OFF"):
            return logging.CRITICAL + 10
        level = logging.getLevelNamesMapping().get(word)
        if level is None and re.fullmatch(r"[0-9]{1,3}", text):
            level = int(text)
        if not level:
            raise Unfit("is none of debug, info, warning, error, critical, none, and no number of a level")
        return level

    def write(self, value: int) -> str:
        """See `Kind`."""
        return str(value)


def readable(text: str) -> str:
    """Return a text that can be encoded, with a question mark for each byte that was no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def named(name: str, group: str, own: tuple[str, ...]) -> str | None:
    """Return a component's name as its package spells it; None if there is none of that name."""
    if name.lower() in own:
        return name.lower()
    for spelling in dict.fromkeys((name, name.lower())):
        if is_provided(group, spelling):
            return spelling
    return None
