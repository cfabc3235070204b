"""Opening of zero-copy references for parameters that are annotated as arrays, tensors or tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from snakepit_otel.zero_copy import Reference

Opening = Callable[[Any], Any]


def opening_of(kind: Any) -> Opening | None:
    """Return the function that opens references for parameters of a class; None if references do not hold such."""
    open_ = _opening_as(kind) if isinstance(kind, type) else None
    return None if open_ is None else partial(_opened, open_)


def _opened(open_: Opening, value: Any) -> Any:
    return open_(value) if isinstance(value, Reference) else value


def _opening_as(kind: type) -> Opening | None:
    package = kind.__module__.partition(".")[0]
    if package == "pyarrow":
        return lambda reference: reference.to_arrow()
    if package == "torch" and kind.__name__ == "Tensor":
        return sys.modules["torch"].from_dlpack  # type: ignore[no-any-return]
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return lambda reference: reference.to_numpy()
    if any(base.__module__ == "numpy" and base.__name__ == "ndarray" for base in kind.__mro__):
        return lambda reference: reference.to_numpy().view(kind)
    # `numpy.typing.ArrayLike` is a union of protocols, which references implement.
    if package == "numpy" and getattr(kind, "_is_protocol", False) and "__array__" in vars(kind):
        return lambda reference: reference.to_numpy()
    return None
