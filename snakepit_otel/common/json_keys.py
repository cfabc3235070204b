"""Keys that mark the special JSON objects of the wire."""

from __future__ import annotations

# A reference: in JSON, and as an attribute of its class in Python.
ZERO_COPY = "__snakepit_zero_copy__"
# The placeholder of a value that JSON cannot carry.
UNSERIALIZABLE = "__ffi_unserializable__"
