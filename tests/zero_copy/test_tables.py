"""Tables, record batches and Arrow's arrays: of every type and shape, equal on the other side, and not copied."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel import zero_copy
from snakepit_otel.errors import ReferenceRefused
from snakepit_otel.zero_copy._current_scope import within
from snakepit_otel.zero_copy._reference import Reference
from tests.zero_copy.both_sides import Bridge

# Arrow's own checks make each example dear, and there are four properties.
quickly = hypothesis.settings(max_examples=max(hypothesis.settings().max_examples // 2, 1))


class Celsius(pa.ExtensionType):
    """An extension type, with a parameter."""

    def __init__(self, sensor: str) -> None:
        self.sensor = sensor
        super().__init__(pa.float64(), "tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        """Return the parameter."""
        return self.sensor.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: Any, serialized: bytes) -> Celsius:
        """Return the type."""
        return cls(serialized.decode())


@pytest.fixture(autouse=True, scope="module")
def _celsius() -> Iterator[None]:
    pa.register_extension_type(Celsius("any"))
    yield
    pa.unregister_extension_type("tests.celsius")


moments = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)
aware = moments.map(lambda moment: moment.replace(tzinfo=datetime.UTC))
texts = st.text(max_size=20)
floats = st.floats(allow_nan=False, width=32)
PLAIN: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *((kind(), st.integers(-100, 100)) for kind in (pa.int8, pa.int16, pa.int32, pa.int64)),
    *((kind(), st.integers(0, 200)) for kind in (pa.uint8, pa.uint16, pa.uint32, pa.uint64)),
    (pa.float16(), st.integers(-1000, 1000).map(np.float16)),
    (pa.float32(), floats),
    (pa.float64(), floats),
    *((kind(), texts) for kind in (pa.string, pa.large_string, pa.string_view)),
    *((kind(), st.binary(max_size=20)) for kind in (pa.binary, pa.large_binary, pa.binary_view)),
    (pa.binary(4), st.binary(min_size=4, max_size=4)),
    (pa.decimal128(20, 3), st.integers(-(10**9), 10**9).map(lambda number: decimal.Decimal(number) / 1000)),
    (pa.decimal256(50, 3), st.integers(-(10**9), 10**9).map(lambda number: decimal.Decimal(number) / 1000)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("s"), st.times().map(lambda time: time.replace(microsecond=0))),
    (pa.time64("us"), st.times()),
    (pa.timestamp("ns"), moments),
    (pa.timestamp("s", "Europe/Berlin"), aware),
    (pa.timestamp("us", "+02:00"), aware),
    (pa.duration("ms"), st.integers(0, 10**9).map(lambda count: datetime.timedelta(milliseconds=count))),
    (pa.month_day_nano_interval(), st.tuples(*[st.integers(0, 100)] * 3).map(pa.MonthDayNano)),
    (pa.uuid(), st.uuids().map(lambda found: found.bytes)),
    (Celsius("roof"), floats),
    (pa.bool8(), st.integers(0, 1)),
    (pa.json_(), st.just('{"a": 1}')),
    (
        pa.fixed_shape_tensor(pa.int32(), (2, 2), dim_names=["x", "y"]),
        st.lists(st.integers(0, 9), min_size=4, max_size=4),
    ),
]


@st.composite
def columns(draw: st.DrawFn, length: int | None = None, depth: int = 2) -> pa.Array:
    """Draw an array of any type, with nulls or without, sliced or whole."""
    if length is None:
        length = draw(st.integers(0, 6))
    before, after = draw(st.tuples(st.integers(0, 3), st.integers(0, 2)))
    size = before + length + after
    shape = draw(st.sampled_from(_SHAPES)) if depth else _plain
    made = shape(draw, size, depth)
    made.validate(full=True)
    assert len(made) == size
    return made.slice(before, length)


def _values(draw: st.DrawFn, some: st.SearchStrategy[Any], size: int) -> list[Any]:
    nullable = draw(st.booleans())
    return draw(st.lists(st.none() | some if nullable else some, min_size=size, max_size=size))


def _plain(draw: st.DrawFn, size: int, _depth: int) -> pa.Array:
    kind, some = draw(st.sampled_from(PLAIN))
    values = _values(draw, some, size)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def _offsets(draw: st.DrawFn, size: int, inner: int) -> list[int]:
    cuts = draw(st.lists(st.integers(0, inner), min_size=size - 1, max_size=size - 1)) if size else []
    return [0, *sorted(cuts), inner] if size else [0]


def _mask(draw: st.DrawFn, size: int) -> pa.Array:
    return pa.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), pa.bool_())


def _list(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    inner = draw(columns(depth=depth - 1))
    large = draw(st.booleans())
    made = pa.LargeListArray if large else pa.ListArray
    offsets = pa.array(_offsets(draw, size, len(inner)), pa.int64() if large else pa.int32())
    return made.from_arrays(offsets, inner, mask=_mask(draw, size))


def _list_view(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    inner = draw(columns(length=4, depth=depth - 1))
    starts = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    sizes = [draw(st.integers(0, 4 - start)) for start in starts]
    return pa.ListViewArray.from_arrays(pa.array(starts, pa.int32()), pa.array(sizes, pa.int32()), inner)


def _fixed_list(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(draw(columns(length=2 * size, depth=depth - 1)), 2)


def _struct(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    fields = draw(st.lists(columns(length=size, depth=depth - 1), min_size=1, max_size=3))
    named = [pa.field(f"field {number}", part.type) for number, part in enumerate(fields)]
    return pa.StructArray.from_arrays(fields, fields=named, mask=_mask(draw, size))


def _map(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    items = draw(columns(depth=depth - 1))
    keys = pa.array([f"key {number}" for number in range(len(items))], pa.string())
    return pa.MapArray.from_arrays(pa.array(_offsets(draw, size, len(items)), pa.int32()), keys, items)


def _dictionary(draw: st.DrawFn, size: int, _depth: int) -> pa.Array:
    kind = draw(st.sampled_from([pa.string(), pa.int64(), pa.timestamp("s", "UTC")]))
    words = {"string": ["a", "ä", ""], "int64": [7, 8, 9]}.get(str(kind), [1, 2, 3])
    index = draw(st.sampled_from([pa.int8(), pa.int32(), pa.uint16()]))
    indices = pa.array(_values(draw, st.integers(0, 2), size), index)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, kind), ordered=draw(st.booleans()))


def _union(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    types = pa.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)), pa.int8())
    one, two = (draw(columns(length=size, depth=depth - 1)) for _ in range(2))
    if draw(st.booleans()):
        return pa.UnionArray.from_sparse(types, [one, two], ["one", "two"])
    return pa.UnionArray.from_dense(types, pa.array(range(size), pa.int32()), [one, two], ["one", "two"])


def _run_ends(draw: st.DrawFn, size: int, _depth: int) -> pa.Array:
    values = pa.array(["x"] * size, pa.string())
    return pa.compute.run_end_encode(values)


_SHAPES = [_plain, _plain, _list, _list_view, _fixed_list, _struct, _map, _dictionary, _union, _run_ends]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draw a table of up to four columns, with metadata, in one batch or several, sliced or whole."""
    rows = draw(st.integers(0, 6))
    found = draw(st.lists(columns(length=rows, depth=1), max_size=4))
    about = {"unit": "m", "ä": "\0"} if draw(st.booleans()) else None
    fields = [pa.field(f"column {number}", part.type, metadata=about) for number, part in enumerate(found)]
    batch = pa.record_batch(found, schema=pa.schema(fields, metadata=about))
    table = pa.Table.from_batches([batch] * draw(st.integers(0, 3)), batch.schema)
    return table.slice(draw(st.integers(0, 2)))


def memory_of(arrays: Iterable[pa.Array]) -> Iterator[pa.Buffer]:
    """Yield all buffers of arrays, those of their dictionaries included."""
    for array in arrays:
        yield from (buffer for buffer in array.buffers() if buffer is not None)
        if isinstance(array, pa.DictionaryArray):
            yield from memory_of([array.dictionary])


def chunks_of(value: Any) -> list[pa.Array]:
    """Return the arrays that a table, record batch or array is made of."""
    if isinstance(value, pa.Table):
        return [chunk for column in value.columns for chunk in column.chunks]
    if isinstance(value, pa.RecordBatch):
        return list(value.columns)
    return list(value.chunks) if isinstance(value, pa.ChunkedArray) else [value]


def assert_in_place(reference: Reference, value: Any) -> None:
    """Fail unless all that `value` consists of lies in the memory of the reference."""
    where = np.frombuffer(reference.open().view(), "u1")
    first, last = where.ctypes.data, where.ctypes.data + where.nbytes
    for buffer in memory_of(chunks_of(value)):
        assert not buffer.size or first <= buffer.address <= buffer.address + buffer.size <= last


def assert_same(got: Any, sent: Any) -> None:
    """Fail unless it is the same: its kind, its type with metadata, its values and its chunks."""
    assert type(got) is type(sent)
    got.validate(full=True)
    if isinstance(sent, (pa.Table, pa.RecordBatch)):
        assert got.schema.equals(sent.schema, check_metadata=True)
        assert got.shape == sent.shape
        assert got.equals(sent, check_metadata=True)
        return
    assert got.type == sent.type
    assert got.equals(sent)
    if isinstance(sent, pa.ChunkedArray):
        assert [len(chunk) for chunk in got.chunks] == [len(chunk) for chunk in sent.chunks]


@given(sent=columns())
@quickly
def test_arrays_of_every_type(shared: Bridge, sent: pa.Array) -> None:
    """An array of any type is the same on the other side, where it was written, and comes back."""
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(sent))
        assert (reference.kind, reference.dtype, reference.shape) == ("arrow", str(sent.type), (len(sent),))
        for got in (reference.to_arrow(), pa.array(reference)):
            assert_same(got, sent)
            assert_in_place(reference, got)
        with within(sides.worker):
            back = sides.hand_back(zero_copy.from_arrow(sent))
        assert_same(back, sent)
        assert_same(sides.hand_over(sent).value(), sent)
        assert_same(sides.hand_back(sent), sent)
    assert_same(back, sent)


@given(sent=columns(), times=st.integers(0, 3))
@quickly
def test_chunked_arrays_of_every_type(shared: Bridge, sent: pa.Array, times: int) -> None:
    """A chunked array keeps its chunks, also if there are none."""
    chunked = pa.chunked_array([sent, sent.slice(1)][:times], sent.type)
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(chunked))
        for got in (reference.to_arrow(), pa.chunked_array(reference)):
            assert_in_place(reference, got)
        assert_same(reference.to_arrow(), chunked)
        assert pa.chunked_array(reference).equals(chunked)
        assert_same(sides.hand_back(chunked), chunked)


@given(sent=tables())
@quickly
def test_tables_of_every_type(shared: Bridge, sent: pa.Table) -> None:
    """A table is the same on the other side, with its metadata, where it was written, and comes back."""
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(sent))
        assert (reference.kind, reference.dtype, reference.shape) == ("arrow", "table", sent.shape)
        for got in (reference.to_arrow(), pa.table(reference)):
            assert_same(got, sent)
            assert_in_place(reference, got)
        assert_same(sides.hand_over(sent).value(), sent)
        assert_same(sides.hand_back(sent), sent)


@given(sent=tables())
@quickly
def test_record_batches_of_every_type(shared: Bridge, sent: pa.Table) -> None:
    """A record batch is the same on the other side, and can be opened as a table as well."""
    batch = next(iter(sent.to_batches()), None) or pa.RecordBatch.from_pylist([], schema=pa.schema([]))
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(batch))
        for got in (reference.to_arrow(), pa.record_batch(reference)):
            assert_same(got, batch)
            assert_in_place(reference, got)
        assert pa.table(reference).equals(pa.Table.from_batches([batch]), check_metadata=True)
        assert_same(sides.hand_over(batch).value(), batch)
        assert_same(sides.hand_back(batch), batch)


@pytest.mark.parametrize("rows", [0, 3])
def test_no_columns(shared: Bridge, rows: int) -> None:
    """A table without columns keeps its rows."""
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    with shared.request() as sides:
        for sent in (batch, pa.Table.from_batches([batch])):
            assert_same(sides.hand_over(zero_copy.from_arrow(sent)).to_arrow(), sent)
            assert_same(sides.hand_over(sent).to_arrow(), sent)


def test_batches_with_dictionaries_of_their_own(shared: Bridge) -> None:
    """Dictionaries may change from batch to batch."""
    one = pa.record_batch({"word": pa.array(["a", "b"]).dictionary_encode()})
    two = pa.record_batch({"word": pa.array(["c", None, "c"]).dictionary_encode()})
    sent = pa.Table.from_batches([one, two])
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(sent))
        assert_same(reference.to_arrow(), sent)
        assert_in_place(reference, reference.to_arrow())


def test_only_what_is_in_the_slice_is_sent(shared: Bridge) -> None:
    """Of a slice of a large table, the slice is shared."""
    table = pa.table({"number": range(1_000_000)}).slice(500_000, 10)
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(table))
        assert reference.bytes < 2_000
        assert_same(reference.to_arrow(), table)


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "int64", "float32", "float64"])
def test_numbers_open_as_numpy(shared: Bridge, kind: str) -> None:
    """An Arrow array of numbers without nulls is a NumPy array of the same memory, not to be written to."""
    sent = pa.array(range(100), kind)
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(sent))
        got = reference.to_numpy()
        assert got.tolist() == sent.to_pylist()
        assert got.dtype == np.dtype(kind)
        assert not got.flags.writeable
        assert np.shares_memory(got, np.frombuffer(reference.open().view(), "u1"))
        assert np.asarray(reference).tolist() == sent.to_pylist()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (pa.array([1, None]), "without copying"),
        (pa.array(["a"]), "without copying"),
        (pa.array([True, False]), "without copying"),
        (pa.array([[1], [2]]), "without copying"),
        (pa.chunked_array([[1], [2]]), "is a ChunkedArray, and no array; use to_arrow"),
        (pa.table({"a": [1]}), "is a Table, and no array; use to_arrow"),
        (pa.record_batch({"a": [1]}), "is a RecordBatch, and no array; use to_arrow"),
    ],
    ids=["nulls", "text", "bits", "lists", "chunked", "table", "batch"],
)
def test_what_numpy_cannot_have_is_refused(shared: Bridge, sent: Any, words: str) -> None:
    """What would have to be copied to be a NumPy array is refused, with what to do instead."""
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_arrow(sent))
        with pytest.raises(ReferenceRefused, match=words):
            reference.to_numpy()


def test_tensors_open_as_arrow(shared: Bridge) -> None:
    """A tensor of one dimension is an Arrow array of the same memory; one of more is refused."""
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_numpy(np.arange(1000.0)))
        got = reference.to_arrow()
        assert got.to_pylist() == list(range(1000))
        assert_in_place(reference, got)
        with pytest.raises(ReferenceRefused, match="has 2 dimensions, and Arrow's arrays have one; use to_numpy"):
            sides.hand_over(zero_copy.from_numpy(np.zeros((2, 2)))).to_arrow()


class Foreign:
    """Another library's table, as Arrow's PyCapsule interface has it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Pass on."""
        return self._value.__arrow_c_stream__(requested_schema)


class ForeignArray:
    """Another library's array."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Pass on."""
        return self._value.__arrow_c_array__(requested_schema)


def test_other_libraries_tables(shared: Bridge) -> None:
    """What speaks Arrow's PyCapsule interface is taken, directly or as a reference, and arrives as PyArrow's."""
    table = pa.table({"a": [1, 2, None], "b": ["x", "y", "z"]})
    column = pa.chunked_array([["a"], ["b", None]])
    array = pa.array([1.5, None])
    with shared.request() as sides:
        for given_, wanted in ((Foreign(table), table), (Foreign(column), column), (ForeignArray(array), array)):
            assert sides.hand_over(zero_copy.from_arrow(given_)).to_arrow().equals(wanted)
            assert sides.hand_over(given_).to_arrow().equals(wanted)
        # A reference is one of them.
        first = sides.hand_over(zero_copy.from_arrow(table))
        assert zero_copy.from_arrow(first).to_arrow().equals(table)


@pytest.mark.parametrize("value", [[1], {"a": 1}, "text", np.arange(3), None])
def test_what_is_no_arrow_data_is_refused_by_its_type(value: Any) -> None:
    """What does not speak Arrow is refused by its class."""
    with pytest.raises(ReferenceRefused, match=rf"{type(value).__qualname__} is no Arrow table, record batch or array"):
        zero_copy.from_arrow(value)


def test_what_does_not_export_is_refused() -> None:
    """Another library's error names the type."""

    class Elsewhere(Foreign):
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            raise NotImplementedError("not from a GPU")

    with pytest.raises(ReferenceRefused, match=r"Elsewhere cannot be read through Arrow: not from a GPU"):
        zero_copy.from_arrow(Elsewhere(None))


def test_references_are_opened_as_what_they_are(shared: Bridge) -> None:
    """It is an error when a table is asked for as an array, or the other way round."""
    with shared.request() as sides:
        table = sides.hand_over(zero_copy.from_arrow(pa.table({"a": [1]})))
        array = sides.hand_over(zero_copy.from_arrow(pa.array([1])))
        with pytest.raises(TypeError):
            pa.array(table)
        with pytest.raises((TypeError, ValueError, pa.ArrowException)):
            pa.record_batch(array)
        assert pa.schema(sides.hand_over(zero_copy.from_arrow(pa.record_batch({"a": [1]})))) == pa.schema(
            [("a", pa.int64())]
        )


def test_tables_outlive_their_references(shared: Bridge) -> None:
    """What was opened stays valid when the reference is gone."""
    sent = pa.table({"text": ["some words"] * 10_000, "list": [[1, 2]] * 10_000})
    with shared.request() as sides:
        got = pa.table(sides.hand_over(sent))
        part = got.column("text").slice(9_990)
    del sides
    assert got.equals(sent)
    del got
    assert part.to_pylist() == ["some words"] * 10
