"""Metadata that callers give a request, apart from the keys that the bridge itself uses."""

from __future__ import annotations

from collections.abc import Mapping

from snakepit_otel.bridge.wire.messages import checked_text
from snakepit_otel.errors import ValueRefused

_RESERVED = ("snakepit_", "binary_format:")


def user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that are not reserved for the bridge."""
    return {key: value for key, value in metadata.items() if not key.startswith(_RESERVED)}


def reserved_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that are reserved for the bridge."""
    return {key: value for key, value in metadata.items() if key.startswith(_RESERVED)}


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a request's metadata. Raises `ValueRefused` for what is no text, and for a reserved key."""
    if not isinstance(metadata, Mapping):
        raise ValueRefused(f"metadata are a {type(metadata).__qualname__}; they must be text by text, as in a dict")
    checked: dict[str, str] = {}
    for key, value in metadata.items():
        name = checked_text(key, "a key of metadata")
        if name.startswith(_RESERVED):
            raise ValueRefused(f"metadata have the key {name!r:.60}; those that begin with {_RESERVED} are reserved")
        checked[name] = checked_text(value, f"metadata[{name!r:.60}]")
    return checked
