"""NumPy and PyArrow, which are optional, and the means to tell what speaks their protocols."""

from __future__ import annotations

import importlib
from typing import Any

from snakepit_otel.errors import ZeroCopyUnavailable


def numpy(what: str = "arrays") -> Any:
    """Return NumPy. Raises `ZeroCopyUnavailable` where it is not installed."""
    return _imported("numpy", what, "numpy")


def pyarrow(what: str = "tables") -> Any:
    """Return PyArrow. Raises `ZeroCopyUnavailable` where it is not installed."""
    return _imported("pyarrow", what, "arrow")


def has_dlpack(value: Any) -> bool:
    return hasattr(type(value), "__dlpack__")


def has_arrow(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__")


def _imported(name: str, what: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ZeroCopyUnavailable(
            f"{what} need {name}, which is not installed: pip install 'snakepit-otel[{extra}]'"
        ) from None
