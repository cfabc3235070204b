"""DLPack format: layout, bytes and checks of arrays in memory."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from snakepit_otel.errors import ReferenceRefused
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy._descriptor import Description

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The dtypes that DLPack and NumPy have in common, with their sizes in bytes.
_BITS = {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64), "complex": (64, 128)}
ITEM_SIZES: Mapping[str, int] = MappingProxyType(
    {"bool": 1} | {f"{kind}{bits}": bits // 8 for kind, widths in _BITS.items() for bits in widths}
)
# DLPack's numbers for devices, in its dlpack.h.
_DEVICES = {
    1: "cpu",
    2: "cuda",
    3: "cuda_host",
    4: "opencl",
    7: "vulkan",
    8: "metal",
    9: "vpi",
    10: "rocm",
    11: "rocm_host",
    12: "ext_dev",
    13: "cuda_managed",
    14: "oneapi",
    15: "webgpu",
    16: "hexagon",
    17: "maia",
}


_LARGEST = 1 << 62


class Layout(NamedTuple):
    """Layout of an array in memory: `order` is C or F; sizes are in bytes."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    order: str
    bytes: int


def layout_of(shape: tuple[int, ...], dtype: Any, order: str = "C") -> Layout:
    """Return the layout of a new array. Raises `ReferenceRefused` for a shape or dtype that cannot be shared."""
    np = libraries.numpy()
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise ReferenceRefused(f"{dtype!r:.60} is no dtype: {error}") from None
    name = _sharable(kind)
    if any(length < 0 for length in shape):
        raise ReferenceRefused(f"shape {list(shape)} has a negative length")
    size = ITEM_SIZES[name]
    if math.prod(length for length in shape if length) * size > _LARGEST:
        raise ReferenceRefused(f"shape {list(shape)} has more elements than memory could hold")
    return Layout(name, shape, _strides(shape, size, order), order, math.prod(shape) * size)


def layout_like(array: NDArray[Any]) -> Layout:
    """Return the layout of a copy of the array: its own order if that is C or Fortran, else C."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return layout_of(array.shape, array.dtype, order)


def can_share(value: Any) -> bool:
    """Return whether a tensor can be shared; True for other libraries' tensors, which `import_dlpack` checks."""
    np = sys.modules.get("numpy")
    if np is None or not isinstance(value, np.ndarray):
        return True
    return bool(value.dtype.isnative and value.dtype.name in ITEM_SIZES)


def parts(array: NDArray[Any], layout: Layout) -> Iterator[memoryview]:
    """Yield the array's bytes in its layout; in pieces where its own layout differs, so that no whole copy is made."""
    np = libraries.numpy()
    if layout.order == "F":
        array = array.T
    if array.flags.c_contiguous:
        yield memoryview(array.reshape(-1).view(np.uint8))
        return
    if array.nbytes <= _PIECE or array.ndim < 2:
        yield from _flat_pieces(array)
        return
    for part in array:
        yield from parts(part, Layout(layout.dtype, part.shape, (), "C", part.nbytes))


_PIECE = 4 << 20


def _flat_pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    np = libraries.numpy()
    step = max(_PIECE // max(array.itemsize, 1), 1)
    pieces = [array] if array.ndim != 1 else (array[start : start + step] for start in range(0, len(array), step))
    for piece in pieces:
        yield memoryview(np.ascontiguousarray(piece).reshape(-1).view(np.uint8))


def import_dlpack(value: Any) -> NDArray[Any]:
    """Return a tensor of any library as an array.

    Raises `ReferenceRefused` for one on another device, and for a dtype that NumPy lacks.
    """
    if not libraries.has_dlpack(value):
        raise ReferenceRefused(f"a {_type(value)} has no __dlpack__, so it is no DLPack tensor")
    device = _device(value)
    if device != "cpu":
        raise ReferenceRefused(
            f"the tensor is on the device {device}; only cpu memory can be shared: move it there first"
        )
    np = libraries.numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise ReferenceRefused("a masked array would lose its mask; pass array.filled() or the data and the mask")
    try:
        # Without subclasses, which may override slicing and size; the elements are shared.
        made: NDArray[Any] = np.asarray(value) if isinstance(value, np.ndarray) else np.from_dlpack(value)
    except (BufferError, TypeError, ValueError, RuntimeError) as error:
        raise ReferenceRefused(f"a {_type(value)} cannot be read through DLPack: {error}") from None
    return made


def check(description: Description, size: int) -> None:
    """Raise `ReferenceRefused` unless every element lies within `size` bytes, aligned, and no two overlap."""
    item = ITEM_SIZES.get(description.dtype)
    if item is None:
        raise ReferenceRefused(
            f"dtype {description.dtype!r:.40} cannot be shared; it must be one of {', '.join(ITEM_SIZES)}"
        )
    shape, strides = description.shape, description.strides
    if strides is None or len(strides) != len(shape):
        raise ReferenceRefused(f"{len(strides or ())} strides for {len(shape)} dimensions")
    if math.prod(length for length in shape if length) * item > _LARGEST:
        raise ReferenceRefused(f"shape {list(shape)} has more elements than memory could hold")
    count = math.prod(shape)
    if description.size != count * item:
        raise ReferenceRefused(f"{description.size} bytes are not what {count} elements of {description.dtype} take")
    if description.offset % item:
        raise ReferenceRefused(f"offset {description.offset} is not aligned for {description.dtype}")
    if description.offset + description.size > size:
        raise ReferenceRefused(
            f"offset {description.offset} and {description.size} bytes go beyond the {size} there are"
        )
    if not count:
        return
    # Innermost first; each dimension must begin where those within it end, and then nothing overlaps or is left out.
    steps = sorted((stride, length) for stride, length in zip(strides, shape, strict=True) if length > 1)
    expected = item
    for stride, length in steps:
        if stride != expected:
            raise ReferenceRefused(f"strides {list(strides)} are not those of {list(shape)} elements without gaps")
        expected *= length


def array(description: Description, view: mmap.mmap) -> NDArray[Any]:
    """Return the buffer as a read-only array, without copying."""
    np = libraries.numpy()
    # Without elements, NumPy would still check strides against the buffer.
    strides = description.strides if description.size else None
    made: NDArray[Any] = np.ndarray(
        description.shape, description.dtype, buffer=view, offset=description.offset, strides=strides
    )
    made.flags.writeable = False
    return made


def writable(layout: Layout, view: mmap.mmap) -> NDArray[Any]:
    """Return an array to write to, in fresh memory."""
    made: NDArray[Any] = libraries.numpy().ndarray(layout.shape, layout.dtype, buffer=view)
    return made


def allocated(value: NDArray[Any]) -> mmap.mmap | None:
    """Return the map that an array covers from its beginning, if it is one."""
    base: Any = value.base
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if not isinstance(base, mmap.mmap):
        return None
    contiguous = value.flags.c_contiguous or value.flags.f_contiguous
    start = libraries.numpy().frombuffer(base, "u1", 1).ctypes.data
    return base if contiguous and value.ctypes.data == start else None


def _strides(shape: tuple[int, ...], size: int, order: str) -> tuple[int, ...]:
    strides, step = [], size
    for length in shape if order == "F" else reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(strides if order == "F" else reversed(strides))


def _sharable(kind: Any) -> str:
    name = str(kind.name)
    if not kind.isnative:
        raise ReferenceRefused(
            f"dtype {kind.str} is of the other byte order; convert it: array.astype(array.dtype.newbyteorder('='))"
        )
    if name not in ITEM_SIZES:
        raise ReferenceRefused(f"dtype {name} cannot be shared; it must be one of {', '.join(ITEM_SIZES)}")
    return name


def _device(value: Any) -> str:
    try:
        number = int(value.__dlpack_device__()[0])
    except Exception as error:  # noqa: BLE001 - another library's code
        raise ReferenceRefused(f"a {_type(value)} does not name its device: {error}") from None
    return _DEVICES.get(number, f"number {number}")


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
