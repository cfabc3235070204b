"""A target that is wrong, to see that it is found; none of those that `make fuzz` runs."""

from __future__ import annotations

from tests.fuzz.kit import target


@target(steps=20)
def planted(data: bytes) -> None:
    """Fail for an input that has one letter in it."""
    if b"x" in data:
        raise LookupError("planted")
