"""Arrow format: tables, record batches and arrays as an IPC stream in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from snakepit_otel.errors import ReferenceRefused
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy._descriptor import Description, Form

if TYPE_CHECKING:
    import pyarrow as pa

_FIELD = ""  # the name of the one column that an array is sent as


class Content(NamedTuple):
    """Record batches to write, and the form of the value that they were made from."""

    schema: pa.Schema
    batches: list[pa.RecordBatch]
    form: Form
    dtype: str
    shape: tuple[int, ...]


def content_of(value: Any) -> Content:
    """Return the content of a table, record batch or array. Raises `ReferenceRefused` for anything else."""
    pa = libraries.pyarrow()
    value = _own(pa, value)
    if isinstance(value, pa.Table):
        return Content(value.schema, value.to_batches(), Form.TABLE, "table", value.shape)
    if isinstance(value, pa.RecordBatch):
        return Content(value.schema, [value], Form.BATCH, "table", value.shape)
    form = Form.CHUNKED if isinstance(value, pa.ChunkedArray) else Form.ARRAY
    schema = pa.schema([pa.field(_FIELD, value.type)])
    chunks = value.chunks if form is Form.CHUNKED else [value]
    batches = [pa.record_batch([chunk], schema=schema) for chunk in chunks]
    return Content(schema, batches, form, str(value.type)[:1_000], (len(value),))


def parts(content: Content) -> list[memoryview]:
    """Return the stream as pieces of memory; the large ones are the table's own."""
    pa = libraries.pyarrow()
    sink = _Pieces()
    try:
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), content.schema) as writer:
            for batch in content.batches:
                writer.write_batch(batch)
    except pa.ArrowException as error:
        raise ReferenceRefused(f"arrow data of type {content.dtype} cannot be shared: {error}") from None
    return sink.pieces


def check(description: Description, size: int) -> None:
    """Raise `ReferenceRefused` unless the stream lies within `size` bytes."""
    if description.form is None or description.strides is not None or description.offset:
        raise ReferenceRefused("an arrow reference has a form, and neither strides nor an offset")
    if description.size > size:
        raise ReferenceRefused(f"{description.size} bytes go beyond the {size} there are")


def read(description: Description, view: mmap.mmap) -> Any:
    """Return the table, record batch or array, without copying. Raises `ReferenceRefused` for malformed data.

    Everything in it is checked, offsets and indices included, because Arrow follows them unchecked.
    """
    pa = libraries.pyarrow()
    whole = pa.py_buffer(view)
    try:
        with pa.ipc.open_stream(whole.slice(0, description.size)) as reader:
            batches = list(reader)
            table = pa.Table.from_batches(batches, reader.schema)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError, MemoryError) as error:
        raise ReferenceRefused(f"the arrow data are malformed: {error}") from None
    _refuse_copies(table, whole)
    found = _restored(table, batches, description.form)
    if found is None:
        raise ReferenceRefused(f"the arrow data are no {description.form}")
    return found


def _restored(table: pa.Table, batches: list[pa.RecordBatch], form: Form | None) -> Any:
    if form is Form.TABLE:
        return table
    if form is Form.BATCH:
        return batches[0] if len(batches) == 1 else None
    if table.num_columns != 1:
        return None
    if form is Form.CHUNKED:
        return table.column(0)
    return batches[0].column(0) if len(batches) == 1 else None


def _refuse_copies(table: pa.Table, whole: pa.Buffer) -> None:
    """Raise unless all data lie in the memory that was sent: decompressed data would not, and could be of any size."""
    first, last = whole.address, whole.address + whole.size
    for buffer in _buffers(chunk for column in table.columns for chunk in column.chunks):
        if buffer.size and not (first <= buffer.address and buffer.address + buffer.size <= last):
            raise ReferenceRefused("the arrow data are compressed or otherwise not where they were sent")


def _buffers(arrays: Iterable[pa.Array]) -> Iterable[pa.Buffer]:
    for array in arrays:
        yield from (buffer for buffer in array.buffers() if buffer is not None)


def _own(pa: Any, value: Any) -> Any:
    """Return another library's value as PyArrow's, without copying, by the PyCapsule interface."""
    if isinstance(value, (pa.Table, pa.RecordBatch, pa.Array, pa.ChunkedArray)):
        return value
    kind = type(value)
    try:
        if hasattr(kind, "__arrow_c_stream__"):
            made = pa.chunked_array(value)
            return pa.Table.from_struct_array(made) if pa.types.is_struct(made.type) else made
        if hasattr(kind, "__arrow_c_array__"):
            return pa.array(value)
    except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
        raise ReferenceRefused(
            f"a {kind.__module__}.{kind.__qualname__} cannot be read through Arrow: {error}"
        ) from None
    raise ReferenceRefused(f"a {kind.__module__}.{kind.__qualname__} is no Arrow table, record batch or array")


class _Pieces:
    """A file that keeps the written pieces without copying."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        self.closed = False
        self._size = 0

    def write(self, data: Any) -> int:
        piece = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
        self.pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
