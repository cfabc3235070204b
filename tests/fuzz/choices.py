"""Structured values made of a fuzzer's bytes: the same bytes make the same values, with and without atheris."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor

T = TypeVar("T")
_DEEPEST = 6
_MOST_PARTS = 8
_EDGES = (0, 1, -1, 2, 255, 256, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63 - 1, -(2**63), 2**63, 2**64, 10**30, 10**400)
_TEXTS = (
    *("", "a", "session-1", "alice", "state_set", "echo", "\x1b[2J", "a\nb", "\u202egpj", "é", "日本", "x" * 300),
    *("__snakepit_zero_copy__", "__ffi_unserializable__", "traceparent", "0" * 32, "f" * 32, "NaN", "1e400", "[/]"),
)


class Choices:
    """Reads choices from bytes; at their end all choices are the first ones, so that every value ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have made no choice yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)

    def byte(self) -> int:
        """Return the next byte; 0 at the end."""
        return (self.take(1) or b"\0")[0]

    def below(self, bound: int) -> int:
        """Return a number from 0 on, below a bound of at most 65,536."""
        number = self.byte() if bound <= 256 else self.byte() << 8 | self.byte()
        return number % bound

    def pick(self, of: Sequence[T]) -> T:
        """Return one of several."""
        return of[self.below(len(of))]

    def chance(self, one_in: int = 2) -> bool:
        """Return true as often as one time in so many; false at the end."""
        return self.below(one_in) == one_in - 1

    def raw(self) -> bytes:
        """Return bytes, whose number comes first."""
        size = self.byte()
        return self.take(size if size < 0xF0 else (size - 0xEF) * 256)

    def text(self) -> str:
        """Return text, known or new; lone surrogates as well."""
        kind = self.below(4)
        if kind == 0:
            return self.pick(_TEXTS)
        raw = self.raw()
        return raw.decode("utf-8", ("replace", "ignore", "surrogateescape")[kind - 1])

    def sendable(self) -> str:
        """Return text that UTF-8 can say."""
        return self.text().encode("utf-8", "replace").decode()

    def integer(self) -> int:
        """Return an integer of any size."""
        kind = self.below(3)
        if kind == 0:
            return self.byte()
        return self.pick(_EDGES) if kind == 1 else int.from_bytes(self.take(8), "little", signed=True)

    def real(self) -> float:
        """Return a float, those that are no numbers among them."""
        kind = self.below(3)
        if kind == 0:
            return float(self.byte())
        if kind == 1:
            return self.pick((0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e-320, 1e308, -1.5, 0.1, 1e16))
        return float(struct.unpack("<d", self.take(8).ljust(8, b"\0"))[0])

    def json(self, deep: int = 0) -> Any:
        """Return what JSON can say, and a float that it cannot."""
        kind = self.below(8 if deep < _DEEPEST else 6)
        if kind == 6:
            return [self.json(deep + 1) for _ in range(self.below(_MOST_PARTS))]
        if kind == 7:
            return {self.text(): self.json(deep + 1) for _ in range(self.below(_MOST_PARTS))}
        if kind < 3:
            return (None, False, True)[kind]
        return self.integer() if kind == 3 else self.real() if kind == 4 else self.text()

    def fill(self, message: Any, deep: int = 0) -> Any:
        """Set some of a message's fields, and of those inside of it, and return it."""
        fields = message.DESCRIPTOR.fields
        for _ in range(self.below(min(len(fields), _MOST_PARTS) + 1)):
            self._set(message, self.pick(fields), deep)
        return message

    def _set(self, message: Any, field: Any, deep: int) -> None:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, inner = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            for _ in range(self.below(4)):
                if inner.message_type is None:
                    value[self._scalar(key)] = self._scalar(inner)
                elif deep < _DEEPEST:
                    self.fill(value[self._scalar(key)], deep + 1)
        elif field.is_repeated:
            for _ in range(self.below(4)):
                if field.message_type is None:
                    value.append(self._scalar(field))
                elif deep < _DEEPEST:
                    self.fill(value.add(), deep + 1)
        elif field.message_type is None:
            setattr(message, field.name, self._scalar(field))
        elif deep < _DEEPEST:
            value.SetInParent()
            self.fill(value, deep + 1)

    def _scalar(self, field: Any) -> Any:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self.raw() if field.type == FieldDescriptor.TYPE_BYTES else self.sendable()
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self.real()
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self.chance()
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self.pick([value.number for value in field.enum_type.values])
        bits = 64 if kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else 32
        signed = kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_INT32)
        number = self.integer() % (1 << bits)
        return number - (1 << bits) if signed and number >> (bits - 1) else number
