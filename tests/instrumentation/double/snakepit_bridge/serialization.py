"""Values in `google.protobuf.Any`, as JSON; anything pickled is refused."""

import math
from contextlib import suppress
from typing import Any

import orjson
from google.protobuf import any_pb2

from .zero_copy import ZeroCopyRef

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _converted(value):
    """Return a JSON value like this one, or a marker in its place."""
    for method in ("model_dump", "to_dict", "_asdict", "tolist", "isoformat"):
        with suppress(Exception):
            return getattr(value, method)()
    return {"__ffi_unserializable__": True, "__type__": f"{type(value).__module__}.{type(value).__name__}"}


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
        return any_pb2.Any(type_url=name, value=orjson.dumps(value, default=_converted)), None

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
        is_reference = isinstance(value, dict) and value.get("__snakepit_zero_copy__")
        return ZeroCopyRef.from_payload(value) if is_reference else value
