"""Memory that processes share: sealed memfds and their maps.

A memfd has no name that could be left behind, and lives for as long as a descriptor or a map does, whoever is
killed. Sealed, it can neither shrink under a reader, which would kill it with SIGBUS, nor change. For the same reason
all of it is allocated before anybody maps it: where there is no memory, that is an error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Self

from snakepit_otel.errors import ReferenceRefused, ReferenceReleased, ZeroCopyLimitExceeded, ZeroCopyUnavailable
from snakepit_otel.zero_copy._reaper import reaper

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_NEEDED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000  # in Python's mmap since 3.13
_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL, since Linux 6.3; older ones say EINVAL
_LARGEST_WRITE = 1 << 30
_LARGE = 256 << 10
_TRIES_TO_SEAL = 10
_BLOCK = 512  # bytes that st_blocks counts in
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


class Buffer:
    """Bytes that do not change: a sealed memfd, or private memory where there are none.

    The map, and all views of it, keep the memory; the descriptor is needed to hand it to another process only. Safe
    to use from several threads.
    """

    __slots__ = ("_descriptor", "_lock", "_view", "size")

    def __init__(self, size: int, descriptor: int | None, view: mmap.mmap | None = None) -> None:
        self.size = size
        self._descriptor = descriptor
        self._view = view
        # A descriptor that one thread closes must not be one that another thread is about to map: by then, its number
        # may be another file's.
        self._lock = threading.Lock()

    @classmethod
    def of(cls, parts: Iterable[memoryview], size: int, *, shared: bool = True) -> Buffer:
        """Return the bytes of `parts`, `size` in all, in new memory. Raises `OSError` if there is none."""
        writer = BufferWriter(size, shared=shared)
        try:
            for part in parts:
                writer.write(part)
            return writer.finish()
        finally:
            writer.discard()

    @classmethod
    def received(cls, descriptor: int) -> Self:
        """Take over a descriptor that a peer sent; raise `ReferenceRefused` unless it is a sealed memfd."""
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:
            os.close(descriptor)
            raise ReferenceRefused("the peer sent no memfd, so its size and its bytes could change") from None
        if seals & _NEEDED != _NEEDED:
            os.close(descriptor)
            raise ReferenceRefused("the peer's memory is not sealed against writing, growing and shrinking")
        status = os.fstat(descriptor)
        if status.st_blocks * _BLOCK < status.st_size:
            os.close(descriptor)
            raise ReferenceRefused(f"the peer's memory has holes: not all of its {status.st_size} bytes are allocated")
        return cls(status.st_size, descriptor)

    @property
    def shared(self) -> bool:
        return self._descriptor is not None

    def fileno(self) -> int:
        """Return the descriptor. Raises `ReferenceReleased` once it is closed, or where there is none."""
        if self._descriptor is None:
            raise ReferenceReleased("the memory has been released meanwhile")
        return self._descriptor

    def view(self) -> mmap.mmap:
        """Return the map, which is made at the first call, read-only; at least a byte of it.

        Raises `ReferenceReleased` after `close`, `ZeroCopyUnavailable` if it cannot be mapped.
        """
        with self._lock:
            if self._view is None:
                try:
                    self._view = _mapped(self.fileno(), max(self.size, 1))
                except (OSError, OverflowError) as error:
                    raise ZeroCopyUnavailable(f"{self.size} bytes cannot be mapped: {error}") from None
            return self._view

    def twin(self) -> Buffer:
        """Return a buffer of the same memory, to be closed on its own. Raises `ZeroCopyLimitExceeded`."""
        with self._lock:
            if self._descriptor is None:
                return Buffer(self.size, None, self._view)
            try:
                return Buffer(self.size, os.dup(self._descriptor))
            except OSError as error:
                raise ZeroCopyLimitExceeded(f"this process cannot have more descriptors: {error}") from None

    def close_descriptor(self) -> None:
        """Close the descriptor; views stay."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._view is None:
            _close(descriptor, self.size)
        else:
            # The map keeps the pages, so closing frees none.
            os.close(descriptor)

    def close(self) -> bool:
        """Close the descriptor and the map; return whether views of it are held elsewhere, which keep the memory."""
        self.close_descriptor()
        with self._lock:
            if self._view is None:
                return False
            held = weakref.ref(self._view)
            self._view = None
        return held() is not None

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            self._descriptor = None
            _close(descriptor, self.size)


class BufferWriter:
    """Writer of a buffer whose `size` bytes arrive in parts."""

    def __init__(self, size: int, *, shared: bool) -> None:
        self._size = size
        self._at = 0
        self._descriptor = _memfd_if_any(size) if shared else None
        self._view = mmap.mmap(-1, max(size, 1)) if self._descriptor is None else None

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises `ReferenceRefused` for more than `size`."""
        if self._at + len(data) > self._size:
            raise ReferenceRefused(f"more bytes arrive than the {self._size} that the reference has")
        if self._view is not None:
            self._view.write(data)
        elif self._descriptor is not None:
            # Written rather than copied into a map, which would have to fault every page in.
            _pwrite(self._descriptor, memoryview(data), self._at)
        self._at += len(data)

    def finish(self) -> Buffer:
        if self._at != self._size:
            raise ReferenceRefused(f"{self._at} bytes arrived of the {self._size} that the reference has")
        if self._descriptor is not None:
            _seal(self._descriptor)
        made = Buffer(self._size, self._descriptor, self._view)
        self._descriptor = self._view = None
        return made

    def discard(self) -> None:
        """Close the memory, unless `finish` has returned it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._view = None


class Allocation:
    """Writable memory that becomes a buffer without being copied."""

    def __init__(self, size: int) -> None:
        """Allocate `size` bytes of zeros. Raises `OSError` if there is no memory to be shared."""
        self.size = size
        self._descriptor: int | None = None
        self._descriptor = _memfd(size, allocated=True)
        view = _reserved(max(size, 1), mmap.PROT_READ | mmap.PROT_WRITE)
        _remap(view, self._descriptor, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
        self._unclaimed: mmap.mmap | None = view
        # Weak, so that the memory is freed with the last array in it.
        self._view = weakref.ref(view)

    def claim(self) -> mmap.mmap:
        """Return the writable map, which the caller owns."""
        view, self._unclaimed = self._unclaimed, None
        assert view is not None
        return view

    def seal(self) -> Buffer:
        """Return the bytes as they are now; later writes through the map stay private to this process.

        A writable map prevents the seal, and arrays point into it. So it is replaced at its address by a private one of
        the same pages, which are copied when they are written to.
        """
        view = self._view()
        if self._descriptor is None or view is None:
            raise ValueError("the allocation was sealed before, or its array no longer exists")
        _remap(view, self._descriptor, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)
        _seal(self._descriptor)
        descriptor, self._descriptor = self._descriptor, None
        return Buffer(self.size, descriptor)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def can_share() -> bool:
    try:
        os.close(_memfd(1))
    except (OSError, AttributeError):
        return False
    return True


def _close(descriptor: int, size: int) -> None:
    if size < _LARGE:
        os.close(descriptor)
    else:
        reaper.submit(partial(os.close, descriptor))


def _seal(descriptor: int) -> None:
    for tried in range(_TRIES_TO_SEAL):
        try:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            # The kernel has waited a tenth of a second for its own short references to the pages, such as those of a
            # migration on a machine that is short of memory or time.
            if error.errno != errno.EBUSY or tried == _TRIES_TO_SEAL - 1:
                raise
        else:
            return


def _memfd_if_any(size: int) -> int | None:
    try:
        return _memfd(size)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno in _FULL:
            raise
        # An old kernel, or one that forbids it.
        return None


def _memfd(size: int, *, allocated: bool = False) -> int:
    """Make a memfd to write to, or with all of it `allocated` to be mapped."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("snakepit", flags | _NOEXEC_SEAL)
    except OSError:
        descriptor = os.memfd_create("snakepit", flags)
    try:
        # Never empty, because nothing can be mapped of an empty one.
        os.ftruncate(descriptor, max(size, 1))
        if allocated or not size:
            os.posix_fallocate(descriptor, 0, max(size, 1))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _pwrite(descriptor: int, data: memoryview, offset: int) -> int:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written : written + _LARGEST_WRITE], offset + written)
    return written


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    view = _reserved(size, mmap.PROT_READ)
    # Private, and writable below Python's own protection: a library that ignores read-only tensors and writes gets
    # pages of its own rather than a SIGSEGV. Until then the pages are the shared ones.
    _remap(view, descriptor, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_NORESERVE)
    return view


def _reserved(size: int, protection: int) -> mmap.mmap:
    # An anonymous map, to be replaced: Python's own map of a file keeps a descriptor open while an array uses it.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=protection)


def _remap(view: mmap.mmap, descriptor: int, protection: int, sharing: int) -> None:
    address = _address(view)
    got = _libc.mmap(address, len(view), protection, sharing | _MAP_FIXED, descriptor, 0)
    if got != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer, by its stable ABI."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address(view: mmap.mmap) -> int:
    exported = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(exported), 0)
    address = exported.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(exported))
    assert address is not None
    return int(address)
