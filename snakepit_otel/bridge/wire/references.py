"""Where references meet the codec: what becomes of arrays, tables and references inside a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snakepit_otel.common.json_keys import UNSERIALIZABLE, ZERO_COPY
from snakepit_otel.errors import ReferenceMisused
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._reference import Reference
from snakepit_otel.zero_copy._scope import Scope
from snakepit_otel.zero_copy.formats import dlpack as tensors

RAW_MARK = ZERO_COPY.encode()
"""The mark that JSON has where there is a reference."""
Opened = Callable[[dict[str, Any]], Any]


class Outgoing:
    """Stands in for what JSON does not know: references, tensors and tables by the scope, the rest by `otherwise`.

    For a peer that is none of ours, `otherwise` is asked first about what is not a reference: it may want a list.
    To be used for one message: what comes twice in it is sent once, and may be another thing in the next.
    """

    def __init__(self, scope: Scope, otherwise: Callable[[Any], Any], *, foreign: bool = False) -> None:
        self._scope = scope
        self._otherwise = otherwise
        self._foreign = foreign
        self._made: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any) -> Any:
        """Return what is sent in place of `value`."""
        known = self._made.get(id(value))
        if known is None:
            # Each with its value, so that no other value can have its id.
            known = self._made[id(value)] = (value, self._made_of(value))
        made = known[1]
        return self._scope.send(made) if isinstance(made, (Reference, Description)) else made

    def _made_of(self, value: Any) -> Any:
        if isinstance(value, Reference):
            return value
        if not can_be_shared(value):
            return self._otherwise(value)
        if self._foreign:
            converted = self._otherwise(value)
            if not (isinstance(converted, dict) and UNSERIALIZABLE in converted):
                return converted
        return self._scope.reference_or_inline(value)


def refuse_reference(value: Any) -> None:
    """Raise `ReferenceMisused` for a reference that is sent otherwise than with its request."""
    if isinstance(value, Reference):
        raise ReferenceMisused(
            f"{value!r} cannot be serialised: a reference lives for one request, and travels as its argument or result"
        )


def has_references(raw: bytes) -> bool:
    """Say whether there may be references in a message's JSON."""
    return RAW_MARK in raw


def can_be_shared(value: Any) -> bool:
    """Say whether a value is a tensor or a table that travels by reference."""
    if libraries.has_arrow(value):
        return True
    return libraries.has_dlpack(value) and tensors.can_share(value)
