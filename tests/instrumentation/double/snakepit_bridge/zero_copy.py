"""References in a worker: the description that travels in place of a buffer."""

from typing import Any


class ZeroCopyRef:
    """A payload, and its parts as attributes."""

    def __init__(self, payload: dict[str, Any]):
        self.payload = payload
        for part in ("kind", "device", "dtype", "shape", "owner", "ref", "copy", "bytes"):
            setattr(self, part, payload.get(part))
        self.metadata = payload.get("metadata", {})

    @classmethod
    def from_payload(cls, payload: dict[str, Any]):
        return cls(payload)

    def to_payload(self) -> dict[str, Any]:
        return {**self.payload}

    def __repr__(self) -> str:
        return f"<ZeroCopyRef {self.payload.get('ref')}>"
