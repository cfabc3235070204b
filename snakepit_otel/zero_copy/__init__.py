"""Request-scoped references to memory that both sides of the bridge share.

    from snakepit_otel import zero_copy

    ref = zero_copy.from_numpy(image)
    label = await pit.execute("classify", {"image": ref})

A reference lives for one request: it is spent when that ends, however it ends. Within a tool, references belong to
the tool's request; elsewhere they wait for the first request that they are passed to, for at most
`zero_copy.unused_ttl` milliseconds, and only while somebody holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snakepit_otel.common.call_site import call_site
from snakepit_otel.common.lazy_exports import lazy_exports
from snakepit_otel.zero_copy._current_scope import current
from snakepit_otel.zero_copy._reference import ArrowReference, Reference, TensorReference
from snakepit_otel.zero_copy.formats import dlpack as tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from snakepit_otel.zero_copy._settings import ZeroCopySettings

__all__ = [
    "ArrowReference",
    "Reference",
    "TensorReference",
    "ZeroCopySettings",
    "empty",
    "from_arrow",
    "from_dlpack",
    "from_numpy",
]

# Loaded when used: whoever enforces the limits has them checked already.
__getattr__, __dir__ = lazy_exports(__name__, {"ZeroCopySettings": "_settings"})


def from_numpy(array: NDArray[Any]) -> Reference:
    """Return a reference to an array's elements.

    They are written once, into memory that can be shared; those of an array that `empty` returned are there already.
    C and Fortran order are kept, other strides become C order. Changes to the array afterwards are not seen by others.

    Raises `ReferenceRefused` for a dtype that DLPack or NumPy has not (objects, text, dates, structures, the other
    byte order), `ZeroCopyLimitExceeded`, `ZeroCopyUnavailable` where NumPy is not installed.
    """
    return current().from_numpy(array, call_site())


def from_dlpack(tensor: Any) -> Reference:
    """Return a reference to a tensor of any library that speaks DLPack; see `from_numpy`.

    Raises `ReferenceRefused`, naming the device, for one that is not in the CPU's memory.
    """
    return current().from_numpy(tensors.import_dlpack(tensor), call_site())


def from_arrow(data: Any) -> Reference:
    """Return a reference to a table, record batch, array or chunked array.

    Of any library that speaks Arrow's PyCapsule interface. It is written once, as an Arrow IPC stream.

    Raises `ReferenceRefused` for anything else, `ZeroCopyLimitExceeded`, `ZeroCopyUnavailable` without PyArrow.
    """
    return current().from_arrow(data, call_site())


def empty(shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return a writable array of zeros in memory that can be shared, for a producer to write to once.

    Passed as an argument, returned from a tool or given to `from_numpy`, whole, it is not copied. From then on, writes
    to it stay private to the process. Raises as `from_numpy` does.
    """
    lengths = (shape,) if isinstance(shape, int) else tuple(int(length) for length in shape)
    return current().empty(lengths, dtype)
