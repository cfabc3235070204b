"""Reference to a buffer: the description that travels in its place."""

from typing import Any


class ZeroCopyRef:
    """A payload, and its parts as attributes."""

    def __init__(self, payload: dict[str, Any]):
        self.payload, self.ref, self.bytes = payload, payload.get("ref"), payload.get("bytes")

    @classmethod
    def from_payload(cls, payload: dict[str, Any]):
        return cls(payload)

    def to_payload(self) -> dict[str, Any]:
        return {**self.payload}
