"""Values in `google.protobuf.Any`, as JSON; anything pickled is refused."""

import json
import math
from contextlib import suppress
from typing import Any

import orjson
from google.protobuf import any_pb2

from . import telemetry
from .zero_copy import ZeroCopyRef

UNSERIALIZABLE_KEY, TYPE_KEY, REPR_KEY = "__ffi_unserializable__", "__type__", "__repr__"

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WAYS = ("model_dump", "to_dict", "_asdict", "tolist", "isoformat")
_told: set[str] = set()


def _otherwise(thing):
    """Return something like it that JSON has, or a marker in its place."""
    for way in _WAYS:
        with suppress(Exception):
            return getattr(thing, way)()
    kind = f"{type(thing).__module__}.{type(thing).__name__}"
    if kind not in _told:
        _told.add(kind)
        telemetry.emit("snakepit.serialization.unserializable_marker", {"first_seen": 1}, {"type": kind})
    return {UNSERIALIZABLE_KEY: True, TYPE_KEY: kind}


class GracefulJSONEncoder(json.JSONEncoder):
    """The same for the standard library's JSON."""

    def default(self, obj):
        return _otherwise(obj)


class TypeSerializer:
    """To and from `Any`, by static methods that callers find on the class."""

    @staticmethod
    def encode_any(value: Any, var_type: str) -> tuple[any_pb2.Any, bytes | None]:
        if isinstance(value, ZeroCopyRef):
            value = value.to_payload()
        elif var_type == "string":
            value = str(value)
        elif var_type == "float":
            value = float(value)
            if not math.isfinite(value):
                value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        name = f"type.googleapis.com/snakepit.{var_type}"
        return any_pb2.Any(type_url=name, value=orjson.dumps(value, default=_otherwise)), None

    @staticmethod
    def decode_any(any_msg: any_pb2.Any, binary_data: bytes | None = None) -> Any:
        kind = any_msg.type_url.rpartition(".")[2].rpartition("/")[2]
        if kind == "binary" and binary_data is not None:
            raise ValueError("the double does not unpickle")
        value = orjson.loads(any_msg.value)
        if kind == "float":
            return _SPECIAL[value] if value in _SPECIAL else float(value)
        if kind == "integer":
            return int(value)
        referred = isinstance(value, dict) and value.get("__snakepit_zero_copy__")
        return ZeroCopyRef.from_payload(value) if referred else value
