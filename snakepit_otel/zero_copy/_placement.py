"""Placement of arrays and tables in memory that other processes can map, with their descriptions."""

from __future__ import annotations

import mmap
import secrets
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from snakepit_otel.errors import ReferenceRefused, ZeroCopyUnavailable
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner
from snakepit_otel.zero_copy._memory import Allocation, Buffer
from snakepit_otel.zero_copy.formats import arrow as tables
from snakepit_otel.zero_copy.formats import dlpack as tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Placed(NamedTuple):
    description: Description
    buffer: Buffer


# What `empty` returned and nothing has sealed yet, by its view.
_allocations: weakref.WeakKeyDictionary[Any, Allocation] = weakref.WeakKeyDictionary()


def allocate(shape: tuple[int, ...], dtype: Any, check: Callable[[int], None], *, shared: bool) -> NDArray[Any]:
    """Return a writable array of zeros, in memory that can be shared without a copy if `shared`.

    `check` raises for a size over the limits. Raises `ZeroCopyUnavailable`.
    """
    layout = tensors.layout_of(shape, dtype)
    check(layout.bytes)
    if not shared:
        return tensors.writable(layout, mmap.mmap(-1, max(layout.bytes, 1)))
    try:
        allocation = Allocation(layout.bytes)
    except OSError as error:
        raise ZeroCopyUnavailable(f"no memory that can be shared: {error}") from None
    view = allocation.claim()
    _allocations[view] = allocation
    return tensors.writable(layout, view)


def place_array(array: NDArray[Any], owner: Owner, check: Callable[[int], None], *, shared: bool) -> Placed:
    """Return a copy of the array, or the array itself if `allocate` made it."""
    elements = tensors.import_dlpack(array)
    layout = tensors.layout_like(elements)
    check(layout.bytes)
    description = _describe(layout, owner)
    allocation = _allocation_of(elements)
    if allocation is not None and allocation.size == layout.bytes and _claim(elements):
        return Placed(description, allocation.seal())
    return Placed(description, Buffer.of(tensors.parts(elements, layout), layout.bytes, shared=shared))


def place_table(value: Any, owner: Owner, check: Callable[[int], None], *, shared: bool) -> Placed:
    content = tables.content_of(value)
    pieces = tables.parts(content)
    size = sum(map(len, pieces))
    check(size)
    description = Description(Kind.ARROW, owner, _new_id(), size, content.dtype, content.shape, form=content.form)
    return Placed(description, Buffer.of(pieces, size, shared=shared))


def inline_array(value: Any, owner: Owner, limit: int) -> Description | None:
    """Return the description of a tensor of at most `limit` bytes with its bytes in it; None for a larger one."""
    array = tensors.import_dlpack(value)
    if array.nbytes > limit or _allocation_of(array) is not None:
        return None
    layout = tensors.layout_like(array)
    return replace(_describe(layout, owner), data=array.tobytes(layout.order), copy=True)  # type: ignore[arg-type]


def inline_table(value: Any, owner: Owner, limit: int) -> Description | None:
    """Return the description of a table of at most `limit` bytes with its bytes in it; None for a larger one."""
    if not libraries.has_arrow(value):
        raise ReferenceRefused(f"a {type(value).__module__}.{type(value).__qualname__} is no tensor, table or array")
    content = tables.content_of(value)
    if sum(batch.nbytes for batch in content.batches) > limit:
        return None
    data = b"".join(tables.parts(content))
    return Description(
        Kind.ARROW, owner, _new_id(), len(data), content.dtype, content.shape, form=content.form, data=data, copy=True
    )


def _describe(layout: tensors.Layout, owner: Owner) -> Description:
    return Description(Kind.DLPACK, owner, _new_id(), layout.bytes, layout.dtype, layout.shape, strides=layout.strides)


def _new_id() -> str:
    return secrets.token_hex(16)


def _allocation_of(array: NDArray[Any]) -> Allocation | None:
    view = tensors.allocated(array)
    return None if view is None else _allocations.get(view)


def _claim(array: NDArray[Any]) -> bool:
    """Return whether the caller may seal an allocation: only the first of several threads may."""
    # Later writes to it are private, so it is no allocation any more.
    return _allocations.pop(tensors.allocated(array), None) is not None
