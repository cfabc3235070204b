"""References to memory as adapters get them from Elixir, and may return them: descriptions, with nothing to open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

__snakepit_otel__ = True


class ZeroCopyRef:
    """A description of memory; `payload` is all that was said of it."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = payload
        for field in ("kind", "device", "dtype", "shape", "owner", "ref", "copy", "bytes"):
            setattr(self, field, payload.get(field))
        self.metadata = payload.get("metadata", {})

    def __getattr__(self, name: str) -> Any:
        # For type checkers: all there is, is set above.
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Self:
        """Return a reference from its JSON form."""
        return cls(payload)

    def to_payload(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dict(self.payload)

    def __repr__(self) -> str:
        return f"<ZeroCopyRef {self.kind} {self.ref} on {self.device}>"
