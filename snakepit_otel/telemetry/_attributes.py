"""Sets of attributes that recur, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_CHARACTERS = 1_024  # of a text: much of what is recorded comes from peers, and waits for its export
_MAX_SETS = 4_000
_MAX_UNIONS = 100
_IMMUTABLE = frozenset({bool, int, float, type(None)})
_known: dict[tuple[tuple[str, Any, type], ...], AttributeSet] = {}


def cut(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes with no text longer than 1 024 characters; the same mapping where there is none."""
    for value in values.values():
        if value.__class__ is str and len(value) > MAX_CHARACTERS:
            return {key: value[:MAX_CHARACTERS] if value.__class__ is str else value for key, value in values.items()}
    return values


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the attributes, texts cut; later changes of lists and mappings among them are not seen."""
    return {
        key: value
        if value.__class__ in _IMMUTABLE or (value.__class__ is str and len(value) <= MAX_CHARACTERS)
        else _copied(value)
        for key, value in values.items()
    }


def _copied(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return value[:MAX_CHARACTERS] if len(value) > MAX_CHARACTERS else value
    if isinstance(value, Mapping):
        return copied(value)
    return tuple(_copied(item) for item in value) if isinstance(value, Sequence) else value


class Details:
    """Attributes of a request's spans that do not change.

    What span makers derive from the attributes is kept with them: `span_form` is a maker's own form of the values,
    `step_cache` what the steps of requests with these attributes share.
    """

    __slots__ = ("span_form", "step_cache", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = copied(values)
        self.span_form: Any = None
        self.step_cache: dict[Any, Any] = {}

    @classmethod
    def of_text(cls, key: str, value: str) -> Details:
        """Return one attribute, with less work; `value` must be text."""
        details = Details.__new__(Details)
        details.values = {key: value[:MAX_CHARACTERS]}
        details.span_form = None
        details.step_cache = {}
        return details

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values!r})"


class AttributeSet(Details):
    """Attributes that recur, as a tool's or a method's.

    `metric_cache` has what counts them, by metric or lifecycle point; `span_cache` what their spans share.
    """

    __slots__ = ("_unions", "metric_cache", "span_cache")

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._unions: dict[AttributeSet, AttributeSet] = {}
        self.metric_cache: dict[Any, Any] = {}
        self.span_cache: dict[Any, Any] = {}

    def plus(self, more: AttributeSet) -> AttributeSet:
        """Return the set of both; of a key in both, the value is that of `more`."""
        found = self._unions.get(more)
        if found is None:
            found = interned({**self.values, **more.values})
            if len(self._unions) < _MAX_UNIONS:
                self._unions[more] = found
        return found


NONE = AttributeSet({})


def interned(values: Mapping[str, Any]) -> AttributeSet:
    """Return the one set of these attributes, whose values must be few; beyond 4 000 sets, a new one each time."""
    if not values:
        return NONE
    try:
        # With their kinds, since 1, 1.0 and True are equal.
        key = tuple([(name, value, value.__class__) for name, value in sorted(values.items())])
        found = _known.get(key)
    except TypeError:  # a list, for one
        return AttributeSet(values)
    if found is None:
        short = cut(values)
        if short is not values:
            return interned(short)
        found = AttributeSet(values)
        if len(_known) < _MAX_SETS:
            found = _known.setdefault(key, found)
    return found
