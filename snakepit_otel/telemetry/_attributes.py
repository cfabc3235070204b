"""Sets of attributes that come again and again, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snakepit_otel.telemetry.spans import otlp

MOST_TEXT = 1_024
"""Characters of an attribute. Much of what is recorded comes from peers, and waits for its export."""
_MOST = 4_000
_known: dict[tuple[tuple[str, Any, type], ...], AttributeSet] = {}


def cut(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes with no text longer than 1 024 characters; the same mapping where there is none."""
    for value in values.values():
        if value.__class__ is str and len(value) > MOST_TEXT:
            return {key: value[:MOST_TEXT] if value.__class__ is str else value for key, value in values.items()}
    return values


class Details:
    """Attributes of a request's spans that do not change, encoded once."""

    __slots__ = ("encoded", "plans", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        values = cut(values)
        self.encoded = otlp.attributes(values)
        """OTLP's bytes for a span; None where the values are of kinds that we leave to OpenTelemetry's encoder."""
        self.values = dict(values) if self.encoded is not None else copied(values)
        self.plans: dict[Any, Any] = {}
        """How steps with these and other attributes are recorded, by the others; see `steps`."""

    @classmethod
    def of_text(cls, key: str, value: str) -> Details:
        """Return the one attribute, with less work; `value` must be text."""
        details = Details.__new__(Details)
        value = value[:MOST_TEXT]
        details.values = {key: value}
        details.plans = {}
        try:
            details.encoded = otlp.text(key, value)
        except UnicodeEncodeError:
            details.encoded = None
        return details

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values!r})"


class AttributeSet(Details):
    """Attributes that recur, as a tool's or a method's: with them is kept all that is derived from them."""

    __slots__ = ("cells", "spans")

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.cells: dict[Any, Any] = {}
        """What counts these attributes, by metric or lifecycle point. Kept here so that it is found in one look."""
        self.spans: dict[Any, Any] = {}
        """What the encodings of spans with these attributes have in common, by lifecycle point."""


NONE = AttributeSet({})


def interned(values: Mapping[str, Any]) -> AttributeSet:
    """Return the one set of these attributes, whose values must be few.

    Beyond 4 000 sets, each is a new one: that costs time, and nothing else.
    """
    if not values:
        return NONE
    try:
        # With their kinds, since 1, 1.0 and True are equal.
        key = tuple([(name, value, value.__class__) for name, value in sorted(values.items())])
        found = _known.get(key)
    except TypeError:  # a list, for one
        return AttributeSet(values)
    if found is None:
        few = cut(values)
        if few is not values:
            return interned(few)
        found = AttributeSet(values)
        if len(_known) < _MOST:
            found = _known.setdefault(key, found)
    return found


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes as they are now, texts cut, whatever becomes of the lists and mappings among them."""
    return {key: _copied(value) for key, value in values.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return value[:MOST_TEXT] if len(value) > MOST_TEXT else value
    if isinstance(value, Mapping):
        return copied(value)
    return tuple(_copied(item) for item in value) if isinstance(value, Sequence) else value
