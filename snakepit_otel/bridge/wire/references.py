"""Conversion of references, arrays and tables to what a message carries in place of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.bridge.wire.reference_list import list_of
from snakepit_otel.common.json_keys import UNSERIALIZABLE, ZERO_COPY
from snakepit_otel.errors import ReferenceMisused
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._reference import Reference
from snakepit_otel.zero_copy._scope import Scope
from snakepit_otel.zero_copy.formats import dlpack as tensors

RAW_MARK = ZERO_COPY.encode()
Opened = Callable[[dict[str, Any]], Any]


class Outgoing:
    """Converts values that JSON does not have: references, tensors and tables by the scope, the rest by `otherwise`.

    For a `foreign` peer, `otherwise` comes first for what is not a reference: such a peer may want a list.
    For one message only: a value that comes twice in it is sent once, and may have changed by the next.
    """

    def __init__(self, scope: Scope, otherwise: Callable[[Any], Any], *, foreign: bool = False) -> None:
        self._scope = scope
        self._otherwise = otherwise
        self._foreign = foreign
        self._made: dict[int, tuple[Any, Any]] = {}
        self._ids: dict[str, None] | None = None

    def __call__(self, value: Any) -> Any:
        """Return the JSON form that is sent in place of `value`."""
        known = self._made.get(id(value))
        if known is None:
            # Each with its value, so that no other value can have its id.
            known = self._made[id(value)] = (value, self._made_of(value))
        made = known[1]
        if not isinstance(made, (Reference, Description)):
            return made
        form = self._scope.send(made)
        if not self._foreign:
            if self._ids is None:
                self._ids = {}
            if "data" not in form["metadata"]:
                self._ids[form["ref"]] = None
        return form

    def list_in(self, message: Any) -> None:
        """List in the message's metadata the references that its values have, if they have any."""
        if self._ids is not None:
            message.metadata[REFERENCES] = list_of(self._ids)

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
