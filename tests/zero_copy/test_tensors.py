"""Tensors: what goes in comes out, bit for bit, or is refused by name; and nothing is copied that need not be."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from snakepit_otel import zero_copy
from snakepit_otel.errors import ReferenceRefused
from snakepit_otel.zero_copy._current_scope import within
from snakepit_otel.zero_copy._reference import Reference
from snakepit_otel.zero_copy.formats.dlpack import ITEM_SIZES
from tests.zero_copy.both_sides import Bridge, inode_at, inode_of, mapping_at

Array = np.ndarray[Any, Any]

DTYPES = [np.dtype(name) for name in ITEM_SIZES]


def random_bits(dtype: Any, shape: tuple[int, ...], seed: int) -> Array:
    """Return an array of random bits, NaNs of all kinds and infinities among them."""
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    bits = np.frombuffer(np.random.default_rng(seed).bytes(count * dtype.itemsize), "u1").copy()
    if dtype.kind == "b":
        bits &= 1
    elif dtype.kind in "fc" and count:
        # A signalling NaN with a payload, which arithmetic would change.
        part = dtype.itemsize // (2 if dtype.kind == "c" else 1)
        quiet = {2: 0x7C01, 4: 0x7F80_0ABC, 8: 0x7FF0_0000_0000_0ABC}[part]
        bits[:part] = np.frombuffer(quiet.to_bytes(part, "little"), "u1")
    return bits.view(dtype).reshape(shape)


def strided(array: Array) -> Array:
    """Return the array with gaps between its elements."""
    return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array


def reversed_(array: Array) -> Array:
    """Return the array with negative strides."""
    return np.flip(np.flip(array).copy()) if array.ndim else array


def broadcast(array: Array) -> Array:
    """Return the array several times, in the memory of one."""
    return np.broadcast_to(array, (3, *array.shape))


def transposed(array: Array) -> Array:
    """Return the array with its dimensions in neither order."""
    return np.moveaxis(array, 0, -1) if array.ndim > 2 else array.T


def read_only(array: Array) -> Array:
    """Return the array, not to be written to."""
    made = array.copy()
    made.flags.writeable = False
    return made


def unaligned(array: Array) -> Array:
    """Return the array at an address that its dtype does not allow."""
    raw = np.empty(array.nbytes + 1, "u1")
    made = raw[1:].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def field(array: Array) -> Array:
    """Return the array as a field of structures, unaligned and with gaps."""
    structures = np.zeros(array.shape, np.dtype([("before", "u1"), ("value", array.dtype)]))
    structures["value"] = array
    made: Array = structures["value"]
    return made


def subclass(array: Array) -> Array:
    """Return the array as one of a class derived from NumPy's."""
    return array.view(np.recarray) if array.ndim == 1 else array.view(type("Mine", (np.ndarray,), {}))


LAYOUTS: list[Callable[[Array], Array]] = [
    np.ascontiguousarray,
    np.asfortranarray,
    strided,
    reversed_,
    broadcast,
    transposed,
    read_only,
    unaligned,
    field,
    subclass,
]

shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
seeds = st.integers(0, 2**32 - 1)


def assert_same(got: Array, sent: Array) -> None:
    """Fail unless it is the same array, bit for bit, read-only, and in Fortran order if that is what it was."""
    assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
    assert got.tobytes() == sent.tobytes()
    assert not got.flags.writeable
    assert got.flags.aligned
    if sent.flags.f_contiguous and not sent.flags.c_contiguous:
        assert got.flags.f_contiguous
    else:
        assert got.flags.c_contiguous


@given(dtype=st.sampled_from(DTYPES), shape=shapes, layout=st.sampled_from(LAYOUTS), seed=seeds)
def test_references_keep_every_bit(
    shared: Bridge, dtype: Any, shape: tuple[int, ...], layout: Callable[[Array], Array], seed: int
) -> None:
    """Every dtype in every layout arrives at the worker, and comes back, as it was."""
    sent = layout(random_bits(dtype, shape, seed))
    with shared.request() as sides:
        with within(sides.caller):
            reference = zero_copy.from_numpy(sent)
        arrived = sides.hand_over(reference)
        assert (arrived.dtype, arrived.shape, arrived.bytes) == (dtype.name, sent.shape, sent.nbytes)
        assert (arrived.kind, arrived.owner, arrived.device, arrived.copy) == ("dlpack", "elixir", "cpu", False)
        assert_same(arrived.to_numpy(), sent)
        with within(sides.worker):
            back = sides.hand_back(zero_copy.from_numpy(sent))
        assert_same(back, sent)
        assert_same(sides.hand_back(arrived), sent)
    # What the caller was given is his to keep.
    assert_same(back, sent)


@given(dtype=st.sampled_from(DTYPES), shape=shapes, layout=st.sampled_from(LAYOUTS), seed=seeds)
def test_small_arrays_in_the_message_keep_every_bit(
    shared: Bridge, dtype: Any, shape: tuple[int, ...], layout: Callable[[Array], Array], seed: int
) -> None:
    """What is passed directly arrives as it was, whether it travels in the message or in shared memory."""
    sent = layout(random_bits(dtype, shape, seed))
    with shared.request() as sides:
        arrived = sides.hand_over(sent)
        assert arrived.copy == (sent.nbytes <= shared.settings.inline_bytes)
        assert_same(arrived.to_numpy(), sent)
        assert_same(sides.hand_back(sent), sent)


@given(dtype=st.sampled_from(DTYPES), shape=shapes, order=st.sampled_from("CF"), seed=seeds)
def test_memory_that_was_allocated_for_it_keeps_every_bit(
    shared: Bridge, dtype: Any, shape: tuple[int, ...], order: str, seed: int
) -> None:
    """What is written to `empty` arrives as it was, transposed or not, in the same memory."""
    content = random_bits(dtype, shape, seed)
    made = zero_copy.empty(shape, dtype)
    assert not made.any()
    made[...] = content
    sent = made.T if order == "F" else made
    with shared.request() as sides:
        where = inode_at(made.ctypes.data)
        with within(sides.caller):
            reference = zero_copy.from_numpy(sent)
        assert inode_of(reference) == where
        assert_same(sides.hand_over(reference).to_numpy(), sent)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_arrays_are_written_in_pieces(shared: Bridge, layout: Callable[[Array], Array]) -> None:
    """An array that is larger than what is copied at a time arrives as it was."""
    sent = layout(random_bits("f4", (3, 700, 900), 1))
    with shared.request() as sides:
        assert_same(sides.hand_over(sent).to_numpy(), sent)
        long = sent.reshape(-1)[::-1]
        assert_same(sides.hand_over(long).to_numpy(), long)


UNSHARABLE: list[tuple[Any, str]] = [
    ("O", "dtype object"),
    ("U5", "dtype str160"),
    ("S5", "dtype bytes40"),
    ("U", "dtype str"),
    ("M8[ns]", r"dtype datetime64\[ns\]"),
    ("M8", "dtype datetime64"),
    ("m8[D]", r"dtype timedelta64\[D\]"),
    ("V4", "dtype void32"),
    ([("x", "f4"), ("y", "i8")], "dtype void96"),
    (np.longdouble, "dtype float128"),
    (np.clongdouble, "dtype complex256"),
    (np.dtypes.StringDType(), "dtype StringDType"),
    (">f4", "dtype >f4 is of the other byte order"),
    (">i2", "dtype >i2 is of the other byte order"),
    (">c16", "dtype >c16 is of the other byte order"),
    (">M8[s]", r"dtype >M8\[s\] is of the other byte order"),
]


@pytest.mark.parametrize(("dtype", "words"), UNSHARABLE)
def test_other_dtypes_are_refused_by_name(dtype: Any, words: str) -> None:
    """What DLPack and NumPy do not both have is refused, by its name, however it is offered."""
    array = np.zeros((2, 2), dtype)
    for make in (lambda: zero_copy.from_numpy(array), lambda: zero_copy.empty((2,), dtype)):
        with pytest.raises(ReferenceRefused, match=words):
            make()
    with pytest.raises(ReferenceRefused, match=words):
        zero_copy.from_dlpack(array)


@given(array=npst.arrays(st.one_of(npst.scalar_dtypes(), npst.nested_dtypes()), npst.array_shapes(max_side=3)))
def test_every_dtype_of_numpys_is_kept_or_refused(shared: Bridge, array: Array) -> None:
    """Any array that there is arrives bit for bit, or is refused by a message that has its dtype."""
    dtype = array.dtype
    if dtype.name in ITEM_SIZES and dtype.isnative:
        with shared.request() as sides:
            assert_same(sides.hand_over(zero_copy.from_numpy(array)).to_numpy(), array)
        return
    with pytest.raises(ReferenceRefused, match=re.escape(dtype.name if dtype.isnative else dtype.str)):
        zero_copy.from_numpy(array)


@pytest.mark.parametrize(
    "name", ["intc", "long", "longlong", "uintc", "ulong", "ulonglong", "half", "single", "csingle"]
)
def test_dtypes_by_their_c_names(shared: Bridge, name: str) -> None:
    """A dtype that C has under several names is the one of its size."""
    sent = np.arange(10).astype(name)
    with shared.request() as sides:
        assert_same(sides.hand_over(zero_copy.from_numpy(sent)).to_numpy(), sent)


@pytest.mark.parametrize("value", [[1, 2], 1.5, np.float32(1), b"abc", None, memoryview(b"abc")])
def test_what_is_no_array_is_refused_by_its_type(value: Any) -> None:
    """`from_numpy` takes arrays, `from_dlpack` what speaks DLPack; others are refused by their class."""
    name = type(value).__qualname__
    with pytest.raises(ReferenceRefused, match=rf"{name} is no NumPy array; try from_dlpack"):
        zero_copy.from_numpy(value)
    with pytest.raises(ReferenceRefused, match=rf"{name} has no __dlpack__"):
        zero_copy.from_dlpack(value)


def test_masked_arrays_are_refused(shared: Bridge) -> None:
    """A mask would be lost, so it is not taken."""
    masked = np.ma.masked_array([1, 2, 3], [False, True, False])
    with shared.request() as sides:
        for offer in (zero_copy.from_numpy, zero_copy.from_dlpack, sides.caller.send):
            with pytest.raises(ReferenceRefused, match="mask"):
                offer(masked)


class Quantity(np.ndarray):
    """An array that behaves otherwise: it is never flat, and has no bytes of its own."""

    def reshape(self, *_: Any) -> Any:  # type: ignore[override]
        return self

    ravel = flatten = reshape

    def tobytes(self, *_: Any) -> bytes:  # type: ignore[override]
        return b""


@pytest.mark.parametrize("size", [3, 300])
@pytest.mark.parametrize("kind", [np.matrix, np.recarray, np.memmap, Quantity])
def test_subclasses_arrive_as_arrays(shared: Bridge, kind: Any, size: int) -> None:
    """What is shared of a subclass of NumPy's array are its elements, all of them, in memory or in the message."""
    plain = np.arange(size * 20.0).reshape(20, size).T
    sent = plain.view(kind)
    with shared.request() as sides:
        assert_same(sides.hand_over(zero_copy.from_numpy(sent)).to_numpy(), plain)
        assert_same(sides.worker.receive(sides.caller.send(sent)).to_numpy(), plain)


def test_subclasses_of_dtypes_that_cannot_be_shared_are_refused(shared: Bridge) -> None:
    """Structures and long doubles are refused by their dtype, whatever class is around them."""
    for sent in (np.zeros(2, [("a", "i4")]).view(np.recarray), np.zeros((1, 2), np.longdouble).view(np.matrix)):
        with shared.request(), pytest.raises(ReferenceRefused, match=rf"dtype {sent.dtype.name} cannot be shared"):
            zero_copy.from_numpy(sent)


@pytest.mark.parametrize("shape", [-1, (2, -1)])
def test_negative_lengths_are_refused(shape: Any) -> None:
    """No array has a negative length."""
    with pytest.raises(ReferenceRefused, match=r"-1\] has a negative length"):
        zero_copy.empty(shape, "f4")


class Elsewhere:
    """A tensor in the memory of some device."""

    def __init__(self, device: int) -> None:
        self._device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where it is."""
        return self._device, 0

    def __dlpack__(self, **_: Any) -> Any:
        """Fail: it must not come to this."""
        raise AssertionError("it must not be exported")


@pytest.mark.parametrize(
    ("number", "name"),
    [(2, "cuda"), (3, "cuda_host"), (4, "opencl"), (8, "metal"), (10, "rocm"), (14, "oneapi"), (99, "number 99")],
)
def test_other_devices_are_refused_by_name(shared: Bridge, number: int, name: str) -> None:
    """A tensor that is not in the CPU's memory is refused before it is touched, by the device's name."""
    with shared.request() as sides:
        for offer in (zero_copy.from_dlpack, sides.caller.send):
            with pytest.raises(ReferenceRefused, match=rf"on the device {name};"):
                offer(Elsewhere(number))


def test_tensors_that_do_not_export_are_refused() -> None:
    """Another library's error names the type."""

    class Broken(Elsewhere):
        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("not today")

    class Lost(Elsewhere):
        def __dlpack_device__(self) -> Any:
            raise RuntimeError("who knows")

    with pytest.raises(ReferenceRefused, match=r"Broken cannot be read through DLPack: not today"):
        zero_copy.from_dlpack(Broken(1))
    with pytest.raises(ReferenceRefused, match=r"Lost does not name its device: who knows"):
        zero_copy.from_dlpack(Lost(1))


def test_dlpack_shares_memory_and_forbids_writing(shared: Bridge) -> None:
    """`numpy.from_dlpack` of a reference is the memory itself, read-only; so are all other ways to open it."""
    sent = np.arange(10_000, dtype="f4").reshape(100, 100)
    with shared.request() as sides:
        reference = sides.hand_over(sent)
        opened = np.from_dlpack(reference)
        assert_same(opened, sent)
        assert np.shares_memory(opened, reference.to_numpy())
        assert np.shares_memory(np.asarray(reference), opened)
        with pytest.raises(ValueError, match="read-only"):
            opened[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            opened.flags.writeable = True
        assert reference.__dlpack_device__() == (1, 0)
        assert np.shares_memory(np.from_dlpack(reference, device="cpu", copy=False), opened)
        copied = np.from_dlpack(reference, copy=True)
        assert not np.shares_memory(copied, opened)
        assert copied.tobytes() == sent.tobytes()


class Legacy:
    """A consumer of before DLPack 1.0 gets this from a reference."""

    def __init__(self, reference: Any, **options: Any) -> None:
        self._reference = reference
        self._options = options

    def __dlpack_device__(self) -> tuple[int, int]:
        """Pass on."""
        device: tuple[int, int] = self._reference.__dlpack_device__()
        return device

    def __dlpack__(self, **_: Any) -> Any:
        """Pass on, without what such a consumer does not know."""
        return self._reference.__dlpack__(**self._options)


@pytest.mark.parametrize("options", [{}, {"max_version": None}, {"max_version": (0, 8)}, {"stream": None}])
def test_legacy_consumers_get_a_copy(shared: Bridge, options: dict[str, Any]) -> None:
    """A consumer without a read-only flag gets a copy, or `BufferError` if it does not want one."""
    sent = np.arange(24, dtype="i8").reshape(4, 6)
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_numpy(sent))
        copied = np.from_dlpack(Legacy(reference, **options))
        copied = copied if copied.flags.writeable else copied.copy()
        assert copied.tobytes() == sent.tobytes()
        assert not np.shares_memory(copied, reference.to_numpy())
        copied[0] = 99
        assert_same(reference.to_numpy(), sent)
        with pytest.raises(BufferError, match="read-only"):
            reference.__dlpack__(copy=False, **options)


@pytest.mark.parametrize("device", [(2, 0), (8, 0), (10, 1)])
def test_export_to_other_devices_is_refused(shared: Bridge, device: tuple[int, int]) -> None:
    """A reference stays where it is."""
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_numpy(np.arange(3)))
        with pytest.raises(BufferError, match=rf"on the cpu, .* device \({device[0]}, {device[1]}\)"):
            reference.__dlpack__(max_version=(1, 0), dl_device=device)
        assert reference.__dlpack__(max_version=(1, 0), dl_device=(1, 0)) is not None


def test_as_an_array_of_another_dtype(shared: Bridge) -> None:
    """`numpy.asarray` converts by copying, and raises where that is forbidden."""
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_numpy(np.arange(3, dtype="i4")))
        assert np.asarray(reference, "f8").tolist() == [0.0, 1.0, 2.0]
        assert np.asarray(reference).dtype == np.int32
        with pytest.raises(ValueError, match="without being copied"):
            np.asarray(reference, "f8", copy=False)
        copied = np.array(reference, copy=True)
        copied[:] = 7
        assert reference.to_numpy().tolist() == [0, 1, 2]
        assert (np.add(reference, 1)).tolist() == [1, 2, 3]


def test_other_libraries_tensors(shared: Bridge) -> None:
    """Any tensor that speaks DLPack will do, in its own layout."""
    pa = pytest.importorskip("pyarrow")
    content = np.arange(12, dtype="f8").reshape(3, 4)
    with shared.request() as sides:
        assert_same(sides.hand_over(zero_copy.from_dlpack(pa.Tensor.from_numpy(content))).to_numpy(), content)
        assert_same(sides.hand_over(zero_copy.from_dlpack(pa.array([1, 2, 3]))).to_numpy(), np.array([1, 2, 3]))
        received = sides.hand_over(zero_copy.from_numpy(content))
        # A reference is a tensor itself.
        again = zero_copy.from_dlpack(received)
        assert again.description.ref != received.description.ref
        assert_same(again.to_numpy(), content)


def test_torch_opens_references(shared: Bridge) -> None:
    """PyTorch reads the memory that the other side has written."""
    torch = pytest.importorskip("torch")
    sent = torch.arange(10_000, dtype=torch.float32)
    with shared.request() as sides:
        reference = sides.hand_over(zero_copy.from_dlpack(sent))
        assert torch.equal(torch.from_dlpack(reference), sent)


def test_empty_is_not_copied(shared: Bridge) -> None:
    """The reader's pages are those that the producer wrote to, and no others come to be."""
    made = zero_copy.empty((1024, 1024), "f4")
    made[:] = 3
    before = mapping_at(made.ctypes.data)
    assert before.shared
    with shared.request() as sides:
        arrived = sides.hand_over(made).to_numpy()
        assert arrived[5, 5] == 3
        read, written = mapping_at(arrived.ctypes.data), mapping_at(made.ctypes.data)
        assert read.inode == written.inode == before.inode
        assert float(made.sum()) == 3 * 1024 * 1024
        # Sealed, the producer's map is a private one of the same pages, none of which has been copied.
        assert (written.shared, written.copied) == (False, 0)
        made[:512] = 4
        assert mapping_at(made.ctypes.data).copied == made.nbytes // 2 // 1024


def test_writing_after_sending_is_private(shared: Bridge) -> None:
    """Writes to sent memory are private: the reader does not see them."""
    made = zero_copy.empty((4096, 16), "u1")
    made[:] = 1
    with shared.request() as sides:
        reference = sides.hand_over(made)
        arrived = reference.to_numpy()
        made[::2] = 2
        assert int(arrived.min()) == int(arrived.max()) == 1
        assert int(made[0, 0]) == 2
        assert np.from_dlpack(reference)[0, 0] == 1
    # Sent again, it is what it is by then.
    with shared.request() as sides:
        second = sides.hand_over(made).to_numpy()
        made[:] = 3
        assert second.tobytes() == np.repeat([2, 1] * 2048, 16).astype("u1").tobytes()
    assert int(arrived.max()) == 1


def test_writing_before_a_reference_that_waits_is_passed(shared: Bridge) -> None:
    """A reference has the content of when it was made, not of when it is passed."""
    made = zero_copy.empty(5_000, "i4")
    made[:] = 1
    reference = zero_copy.from_numpy(made)
    made[:] = 2
    with shared.request() as sides:
        assert set(sides.hand_over(reference).to_numpy().tolist()) == {1}


indices = npst.basic_indices((6, 5, 4), allow_newaxis=True)


@given(index=indices, seed=seeds, directly=st.booleans())
def test_slices_of_empty(shared: Bridge, index: Any, seed: int, directly: bool) -> None:
    """Any part of what `empty` made arrives as it is, and the rest of it is not shared; it can be sent whole later."""
    content = random_bits("i4", (6, 5, 4), seed)
    made = zero_copy.empty((6, 5, 4), "i4")
    made[...] = content
    part = made[index]
    assume(isinstance(part, np.ndarray))
    with shared.request() as sides:
        arrived = sides.hand_over(part if directly else zero_copy.from_numpy(part))
        assert arrived.bytes == part.nbytes
        assert_same(arrived.to_numpy(), content[index])
        made[...] = 0
        assert_same(arrived.to_numpy(), content[index])
        assert_same(sides.hand_over(made).to_numpy(), np.zeros_like(content))


def test_other_views_of_empty(shared: Bridge) -> None:
    """Seen as another dtype or shape, the whole is still not copied."""
    made = zero_copy.empty((8, 8), "f4")
    made[:] = 1
    where = inode_at(made.ctypes.data)
    with shared.request() as sides:
        with within(sides.caller):
            reference = zero_copy.from_numpy(made.reshape(-1).view("i4"))
        assert inode_of(reference) == where
        arrived = sides.hand_over(reference).to_numpy()
        assert set(arrived.tolist()) == {0x3F800000}


def test_empty_is_sent_by_several_threads_at_once() -> None:
    """Of threads that send the same array at the same time, one has its memory, and the others copies."""
    with ThreadPoolExecutor(3) as threads:
        for number in range(100):
            made = zero_copy.empty((64, 64), "i4")
            made[:] = number
            where = inode_at(made.ctypes.data)
            together = threading.Barrier(3)

            def send(made: Array = made, together: threading.Barrier = together) -> Reference:
                together.wait()
                return zero_copy.from_numpy(made)

            references = [sent.result() for sent in [threads.submit(send) for _ in range(3)]]
            assert sum(inode_of(reference) == where for reference in references) == 1
            for reference in references:
                assert set(reference.to_numpy().ravel().tolist()) == {number}
                reference.release()


def test_arrays_stay_when_their_makers_go(shared: Bridge) -> None:
    """An array outlives the reference, the request and the memory's first owner."""
    made = zero_copy.empty(100_000, "f8")
    made[:] = 2.5
    with shared.request() as sides:
        reference = sides.hand_over(made)
        views = [reference.to_numpy()[10:20], np.from_dlpack(reference)[::2]]
        back = sides.hand_back(np.full(100_000, 1.5))
    del made, reference, sides
    assert [float(view.sum()) for view in views] == [25.0, 125_000.0]
    assert float(back.sum()) == 150_000.0
