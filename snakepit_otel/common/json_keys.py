"""The keys by which the wire's special JSON objects are known."""

from __future__ import annotations

ZERO_COPY = "__snakepit_zero_copy__"
"""Of a reference: in JSON, and as an attribute of its class in Python."""
UNSERIALIZABLE = "__ffi_unserializable__"
"""Of what stands in for a value that JSON cannot carry."""
