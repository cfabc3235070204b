"""Kinds of environment variables: parsing, and the spelling that the SDK accepts."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from snakepit_otel.telemetry.environment.components import provided

# Larger numbers raise an OverflowError in the SDK or in the interpreter.
MAX_NUMBER = 2**31 - 1
ONE_DAY_MS = 86_400_000


class InvalidValue(Exception):
    """An invalid value; `usable` is its valid part, or a valid value near it, None if there is none."""

    def __init__(self, reason: str, usable: Any = None) -> None:
        super().__init__(reason)
        self.usable = usable


class Kind:
    """A kind of value; `code` is that of an invalid one in the doctor's findings."""

    code = "bad_value"

    def read(self, text: str) -> Any:
        """Return the value of a text that is not blank. Raises `InvalidValue`."""
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """Return the spelling of a value that the SDK accepts."""
        return str(value)


class Text(Kind):
    """Any text."""

    def read(self, text: str) -> str:
        """See `Kind`. With bytes that are no UTF-8, no export could be encoded."""
        usable = encodable(text)
        if usable != text:
            raise InvalidValue("has bytes that are no UTF-8", usable)
        return text


class Flag(Kind):
    """True or false, in upper or lower case."""

    def read(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise InvalidValue("is neither true nor false")
        return text.lower() == "true"

    def write(self, value: bool) -> str:
        return "true" if value else "false"


class Switch(Kind):
    """On or off, in upstream's words."""

    def read(self, text: str) -> bool:
        if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise InvalidValue("is none of 1, true, yes, on, 0, false, no, off")
        return text.lower() in ("1", "true", "yes", "on")

    def write(self, value: bool) -> str:
        return "1" if value else "0"


@dataclass(frozen=True)
class Word(Kind):
    """One of some words, in upper or lower case; `unsupported` maps legal ones without an implementation to others."""

    words: tuple[str, ...]
    unsupported: Mapping[str, str] = field(default_factory=dict)
    code: str = "bad_value"

    def read(self, text: str) -> str:
        word = text.lower()
        if word in self.unsupported:
            raise InvalidValue("is not supported", self.unsupported[word])
        if word not in self.words:
            raise InvalidValue(f"is none of {', '.join(self.words)}")
        return word


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number in a range; a larger one counts as the maximum, and with `clamp_negative` a negative one as 0."""

    minimum: int = 0
    maximum: int = MAX_NUMBER
    clamp_negative: bool = False

    def read(self, text: str) -> int:
        if self.clamp_negative and re.fullmatch(r"-[0-9]+", text):
            raise InvalidValue("is below 0", 0)
        if not re.fullmatch(r"\+?[0-9]+", text):
            raise InvalidValue(f"is not a whole number from {self.minimum}")
        digits = text.lstrip("+0") or "0"
        # Python itself refuses to read thousands of digits.
        if len(digits) > len(str(self.maximum)) or int(digits) > self.maximum:
            raise InvalidValue(f"is more than {self.maximum}", self.maximum)
        if int(digits) < self.minimum:
            raise InvalidValue(f"is not a whole number from {self.minimum}")
        return int(digits)


@dataclass(frozen=True)
class Number(Kind):
    """A number above zero, or from zero on with `allow_zero`; a larger one counts as the maximum."""

    maximum: float
    unit: str
    minimum: float = 0.0
    allow_zero: bool = False
    code: str = "bad_value"

    def read(self, text: str) -> float:
        wanted = f"a number from 0 to {self.maximum:g}" if self.allow_zero else f"a number of {self.unit} above 0"
        try:
            number = float(text)
        except ValueError:
            raise InvalidValue(f"is not {wanted}") from None
        if math.isnan(number) or number < 0 or (number == 0 and not self.allow_zero):
            raise InvalidValue(f"is not {wanted}")
        if number > self.maximum:
            raise (
                InvalidValue(f"is not {wanted}")
                if self.allow_zero
                else InvalidValue(f"is more than {self.maximum:g} {self.unit}", self.maximum)
            )
        return number


@dataclass(frozen=True)
class Component(Kind):
    """The name of an entry point in a group; `own` names need no installed package."""

    group: str
    own: tuple[str, ...] = ()

    def read(self, text: str) -> str:
        found = component_name(text, self.group, self.own)
        if found is None:
            raise InvalidValue("is provided by no installed package")
        return found


@dataclass(frozen=True)
class Components(Kind):
    """A comma-separated list of such names without duplicates; the name `alone` replaces all others."""

    group: str
    own: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    alone: str = ""
    code: str = "bad_value"

    def read(self, text: str) -> tuple[str, ...]:
        given = [name.strip() for name in text.split(",") if name.strip()]
        if self.alone and self.alone in (name.lower() for name in given):
            return (self.alone,)
        found = {name: component_name(self.aliases.get(name.lower(), name), self.group, self.own) for name in given}
        usable = tuple(dict.fromkeys(name for name in found.values() if name is not None))
        missing = [repr(encodable(name)[:40]) for name, provided in found.items() if provided is None]
        if missing:
            raise InvalidValue(f"has {', '.join(missing[:5])}, provided by no installed package", usable or None)
        if not usable:
            raise InvalidValue("names nothing")
        return usable

    def write(self, value: tuple[str, ...]) -> str:
        return ",".join(value)


class File(Kind):
    """The path of a file that can be read."""

    code = "missing_file"

    def read(self, text: str) -> str:
        try:
            with Path(text).open("rb") as file:
                empty = not file.read(1)
        except (OSError, ValueError) as error:
            raise InvalidValue(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
        if empty:
            raise InvalidValue("is an empty file")
        return text


class _Pairs(Kind):
    """Comma-separated pairs of name=value, percent-encoded where needed."""

    _named = ""

    def read(self, text: str) -> dict[str, str]:
        pairs, wrong = {}, []
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for number, entry in enumerate(entries, 1):
            name, equals, value = entry.partition("=")
            pair = self._pair(name.strip(), unquote(value.strip()))
            if not equals or pair is None:
                wrong.append(str(number))
            else:
                pairs[pair[0]] = pair[1]
        if wrong:
            raise InvalidValue(
                f"has entries that are {self._named} ({', '.join(wrong[:9])} of {len(entries)})", pairs or None
            )
        return pairs

    def _pair(self, name: str, value: str) -> tuple[str, str] | None:
        raise NotImplementedError

    def write(self, value: dict[str, str]) -> str:
        return ",".join(f"{name}={quote(of, safe='')}" for name, of in value.items())


class Attributes(_Pairs):
    """Attributes of a resource."""

    _named = "not name=value"

    def _pair(self, name: str, value: str) -> tuple[str, str] | None:
        return (name, value) if name and encodable(name + value) == name + value else None


class Headers(_Pairs):
    """Headers that gRPC and HTTP can send."""

    code = "bad_header"
    _named = "no headers"

    def _pair(self, name: str, value: str) -> tuple[str, str] | None:
        name, value = unquote(name).strip().lower(), value.strip()
        # A binary header of gRPC takes bytes, which no variable has.
        is_name = re.fullmatch(r"[a-z0-9_.-]+", name) and not name.endswith("-bin") and not name.startswith("grpc-")
        return (name, value) if is_name and re.fullmatch(r"[ -~]*", value) else None


class LogLevel(Kind):
    """A level of `logging`, by name or number; `none` is above all of them."""

    def read(self, text: str) -> int:
        word = text.upper()
        if word in ("NONE", "OFF"):
            return logging.CRITICAL + 10
        level = logging.getLevelNamesMapping().get(word)
        if level is None and re.fullmatch(r"[0-9]{1,3}", text):
            level = int(text)
        if not level:
            raise InvalidValue("is none of debug, info, warning, error, critical, none, and no number of a level")
        return level


class LogLevels(Kind):
    """Levels of single loggers, as `myapp=debug,myapp.db=warning`."""

    def read(self, text: str) -> dict[str, int]:
        levels, wrong = {}, []
        for part in filter(None, map(str.strip, text.split(","))):
            name, equals, level = (piece.strip() for piece in part.partition("="))
            try:
                if not name or not equals:
                    raise InvalidValue("is no pair")
                levels[name] = LogLevel().read(level)
            except InvalidValue:
                wrong.append(part)
        if wrong:
            raise InvalidValue(f"has what is no NAME=LEVEL: {', '.join(wrong)}", levels or None)
        return levels

    def write(self, value: dict[str, int]) -> str:
        return ",".join(f"{name}={logging.getLevelName(level).lower()}" for name, level in value.items())


def encodable(text: str) -> str:
    """Return a text that can be encoded, with a question mark for each byte that was no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def component_name(name: str, group: str, own: tuple[str, ...]) -> str | None:
    """Return a component's name as its package spells it; None without such a component."""
    if name.lower() in own:
        return name.lower()
    for spelling in dict.fromkeys((name, name.lower())):
        if provided(group, spelling) is not None:
            return spelling
    return None
