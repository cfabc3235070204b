"""Conversion of a value that JSON cannot carry: its own if it offers one, else a marker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral, Rational, Real
from typing import Any

from snakepit_otel.bridge.wire.conversions import conversion_of, is_numpy_time, numpy_times
from snakepit_otel.bridge.wire.references import refuse_reference
from snakepit_otel.common.attempt import attempt
from snakepit_otel.common.json_keys import UNSERIALIZABLE
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.telemetry import environment

_DETAILS = ("none", "type", "repr_truncated", "repr_redacted_truncated")
_SECRET = re.compile(
    r"(?i)((?:api[_-]?key|token|secret|passw(?:or)?d|authorization|bearer)['\"]?\s*[:= ]\s*['\"]?)[^\s'\",)}\]]+"
)
_MAX_REPR = 2000
_NOTHING = object()
_PLAIN: tuple[type[Any], ...] = (str, int, float, list, dict, tuple)


class Unserializable:
    """Converts values that JSON does not have.

    Conversions are tried first: `model_dump`, `to_dict`, `_asdict`, `tolist` (arrays of at most
    `tolist_max_elements`), `isoformat`. What offers none becomes
    `{"__ffi_unserializable__": true, "__type__": "<module>.<Class>"}`; its repr is added only on request,
    because it may contain more than the caller may see.
    """

    def __init__(self, detail: str = "type", repr_maxlen: int = 500, tolist_max_elements: int = 1_000_000) -> None:
        if detail not in _DETAILS:
            raise ConfigurationError(
                f"SNAKEPIT_UNSERIALIZABLE_DETAIL is {detail!r}; it must be one of {', '.join(_DETAILS)}"
            )
        self._detail = detail
        self._repr_maxlen = max(0, min(repr_maxlen, _MAX_REPR))
        self._tolist_max_elements = tolist_max_elements

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Unserializable:
        """Read the `SNAKEPIT_UNSERIALIZABLE_*` and `SNAKEPIT_TOLIST_MAX_ELEMENTS` variables."""
        return cls(
            environment.value("SNAKEPIT_UNSERIALIZABLE_DETAIL", environ),
            environment.value("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", environ),
            environment.value("SNAKEPIT_TOLIST_MAX_ELEMENTS", environ),
        )

    def __call__(self, value: Any) -> Any:
        """Return what stands in for `value` where Elixir reads it: what upstream's worker would convert, or a marker.

        Raises `ReferenceMisused` for a reference, which nothing may stand in for.
        """
        refuse_reference(value)
        made = self._offered(value)
        return self._marker(value) if made is _NOTHING else made

    def for_python(self, value: Any) -> Any:
        """Return what stands in for `value` where Python reads it: a conversion of the table, too, before a marker."""
        refuse_reference(value)
        if is_numpy_time(value) and value.size <= self._tolist_max_elements:
            return numpy_times(value)
        made = self._offered(value)
        if made is not _NOTHING:
            return made
        convert = conversion_of(value)
        return self._marker(value) if convert is None else convert(value)

    def _offered(self, value: Any) -> Any:
        """Return the value by a conversion that it offers, or as the plain type that it is at heart."""
        for method in ("model_dump", "to_dict", "_asdict", "tolist", "isoformat"):
            made = value
            with suppress(Exception):  # a conversion that fails is not offered
                convert = getattr(value, method, None)
                if convert is None or isinstance(value, type):
                    continue
                if method == "tolist" and getattr(value, "size", 0) > self._tolist_max_elements:
                    continue
                made = convert()
            if type(made) is not type(value):  # or it would be converted for ever, as a long double would
                return made
        plain = next((kind for kind in _PLAIN if isinstance(value, kind)), None)
        if plain is not None:
            return plain(value)
        if isinstance(value, (set, frozenset)):
            return list(value)
        if isinstance(value, Integral):
            return int(value)
        # Fractions, of which Python has its own type, would lose more than long doubles do.
        return float(value) if isinstance(value, Real) and not isinstance(value, Rational) else _NOTHING

    def _marker(self, value: Any) -> dict[str, Any]:
        marker: dict[str, Any] = {UNSERIALIZABLE: True}
        if self._detail == "none":
            return marker
        # Without the classes and functions around it, as upstream's peers compare it.
        marker["__type__"] = f"{type(value).__module__}.{type(value).__name__}"
        if self._detail.startswith("repr"):
            text, error = attempt(repr, value)
            if error is not None:
                text = f"<repr failed: {type(error).__name__}>"
            if self._detail == "repr_redacted_truncated":
                text = _SECRET.sub(r"\1<redacted>", text)
            marker["__repr__"] = text[: self._repr_maxlen]
        return marker
