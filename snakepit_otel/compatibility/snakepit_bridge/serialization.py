"""Values in `google.protobuf.Any`, as the bridge carries them. Nothing is pickled, and no pickle is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_otel.bridge.wire.codec import decode_any, encode_result
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.bridge.wire.values import to_json
from snakepit_otel.common.json_keys import UNSERIALIZABLE, ZERO_COPY
from snakepit_otel.errors import ValueRefused

from .zero_copy import ZeroCopyRef

__snakepit_otel__ = True

UNSERIALIZABLE_KEY = UNSERIALIZABLE
TYPE_KEY = "__type__"
REPR_KEY = "__repr__"


class GracefulJSONEncoder(json.JSONEncoder):
    """Encodes what JSON does not know as the bridge does: by what it can be converted to, or a marker."""

    def default(self, o: Any) -> Any:
        """See `json.JSONEncoder`."""
        return Unserializable.from_environment(os.environ)(o)


class TypeSerializer:
    """Values to messages and back, by the bridge's types."""

    @staticmethod
    def encode_any(value: Any, var_type: str) -> tuple[AnyMessage, bytes | None]:
        """Return a value as a message of a type, and its bytes where it is bytes. Raises `ValueError`."""
        if isinstance(value, ZeroCopyRef):
            value = value.to_payload()
        elif isinstance(value, (bytes, bytearray, memoryview)) and var_type == "binary":
            return encode_result(value)
        else:
            value = _normalised(value, var_type)
        raw = encode_result(value)[0].value if var_type == "float" else to_json(value, _unserializable())
        return AnyMessage(type_url=f"type.googleapis.com/snakepit.{var_type}", value=raw), None

    @staticmethod
    def decode_any(any_msg: AnyMessage, binary_data: bytes | None = None) -> Any:
        """Return a message's value. Raises `ValueRefused`, a `ValueError`, for a pickle."""
        if any_msg.type_url.endswith(".binary"):
            if any_msg.type_url == "type.googleapis.com/snakepit.binary" and binary_data is not None:
                return binary_data
            raise ValueRefused(f"a pickled value ({any_msg.type_url}) is never read: it could run code")
        value = decode_any(any_msg)
        if isinstance(value, Mapping) and value.get(ZERO_COPY):
            return ZeroCopyRef.from_payload(value)
        kind = any_msg.type_url.rpartition("/")[2].rpartition(".")[2]
        if kind == "float":
            return float(value)
        if kind == "tensor" and isinstance(value, Mapping) and {"data", "shape"} <= value.keys():
            return _array(value)
        return value

    @staticmethod
    def validate_constraints(value: Any, var_type: str, constraints: Mapping[str, Any]) -> None:
        """Raise `ValueError` for a value outside its constraints."""
        if var_type in ("float", "integer"):
            _between(value, constraints.get("min"), constraints.get("max"), "the value")
        elif var_type == "string":
            _between(len(value), constraints.get("min_length"), constraints.get("max_length"), "the length")
        elif var_type in ("choice", "module"):
            allowed = constraints.get("choices" if var_type == "choice" else "allowed_modules")
            if allowed and value not in allowed:
                raise ValueError(f"{value!r} is none of {allowed}")
        elif var_type == "embedding":
            size = constraints.get("dimensions")
            if size and len(value) != size:
                raise ValueError(f"the embedding has {len(value)} dimensions, and not {size}")
        elif var_type == "tensor":
            shape = constraints.get("shape")
            found = value.get("shape") if isinstance(value, Mapping) else list(value.shape)
            if shape and found != shape:
                raise ValueError(f"the tensor has the shape {found}, and not {shape}")


def _unserializable() -> Unserializable:
    return Unserializable.from_environment(os.environ)


def _between(value: float, least: float | None, most: float | None, what: str) -> None:
    if least is not None and value < least:
        raise ValueError(f"{what}, {value}, is below {least}")
    if most is not None and value > most:
        raise ValueError(f"{what}, {value}, is above {most}")


def _normalised(value: Any, var_type: str) -> Any:  # noqa: PLR0911 - one for each type
    match var_type:
        case "float" if isinstance(value, (int, float)):
            return float(value)
        case "integer" if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
        case "string" | "choice" | "module":
            return str(value)
        case "boolean" if isinstance(value, bool):
            return value
        case "embedding" if isinstance(value, list):
            return [float(part) for part in value]
        case "embedding" if hasattr(value, "tolist"):
            return value.tolist()
        case "tensor" if isinstance(value, Mapping) and {"data", "shape"} <= value.keys():
            return value
        case "tensor" if hasattr(value, "tolist") and hasattr(value, "shape"):
            return {"shape": list(value.shape), "data": value.tolist()}
        case "float" | "integer" | "boolean" | "embedding" | "tensor":
            raise ValueError(f"a {type(value).__name__} is no {var_type}")
    return value


def _array(value: Mapping[str, Any]) -> Any:
    try:
        import numpy as np
    except ImportError:
        return value
    return np.array(value["data"]).reshape(value["shape"])
