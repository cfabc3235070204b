"""References: handles to buffers of one request, which NumPy, DLPack and Arrow open by their own protocols."""

from __future__ import annotations

import sys
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, Self

from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import ReferenceMisused, ReferenceRefused, ReferenceReleased, ZeroCopyUnavailable
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy import _metrics as metrics
from snakepit_otel.zero_copy._descriptor import Description, Form, Kind
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._reaper import reaper
from snakepit_otel.zero_copy.formats import arrow as tables
from snakepit_otel.zero_copy.formats import dlpack as tensors

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


_CPU = (1, 0)
_RULE = "a reference lives for one request"


class Abandoned(NamedTuple):
    """The memory and the origin of a reference that was garbage-collected before its release."""

    description: Description
    buffer: Buffer | None
    created: float
    call_site: str


class ReferenceScope(Protocol):
    """The scope of a reference, as the reference depends on it."""

    def release(self, reference: Reference, reason: str) -> None:
        """Release the reference; a second time does nothing."""

    def on_abandoned(self, abandoned: Abandoned) -> None:
        """Release the memory of a reference that was garbage-collected before its release."""


class Reference:
    """A handle to memory that both sides of the bridge can read, for as long as one request lasts.

    Made by `zero_copy.from_numpy`, `from_dlpack`, `from_arrow`, or received as an argument. It cannot be copied,
    pickled, encoded as JSON, kept in session state or passed to another request; what was opened of it (arrays,
    tables) stays valid for as long as it is held. Usable in a `with` block, which releases it.

    Raises `ReferenceReleased` when it is used after its request or its release.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_end",
        "call_site",
        "created",
        "description",
        "is_local",
        "returned",
        "scope",
        "sent",
    )

    def __init__(
        self,
        scope: ReferenceScope,
        description: Description,
        buffer: Buffer | None,
        *,
        is_local: bool = False,
        call_site: str = "",
    ) -> None:
        self.scope = scope  # of its request
        self._buffer = buffer
        self._end = ""
        self.description = description
        self.is_local = is_local  # created here, and not received
        self.call_site = call_site
        self.returned = False  # as a result, of which the caller may keep views
        self.sent = not is_local
        self.created = monotonic()

    @property
    def kind(self) -> str:
        """`dlpack` for tensors, `arrow` for tables and Arrow's arrays."""
        return self.description.kind.value

    @property
    def owner(self) -> str:
        """The side that created it: `elixir` for the authority and its callers, `python` for a worker."""
        return self.description.owner.value

    @property
    def device(self) -> str:
        """`cpu`."""
        return self.description.device

    @property
    def dtype(self) -> str:
        """The type of the elements."""
        return self.description.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the dimensions; of a table, rows and columns."""
        return self.description.shape

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.description.size

    @property
    def copy(self) -> bool:
        """Whether the bytes were copied to get here, rather than shared."""
        return self.description.copy

    @property
    def released(self) -> bool:
        """Whether it has been released."""
        return bool(self._end)

    def to_numpy(self) -> NDArray[Any]:
        """Return it as a read-only array, without copying. Raises `ReferenceRefused` for a table."""
        raise NotImplementedError

    def to_arrow(self) -> Any:
        """Return it as a PyArrow table, record batch or array, without copying; see `to_numpy`."""
        raise NotImplementedError

    def value(self) -> Any:
        """Return an array, or the table, record batch or array of Arrow's."""
        raise NotImplementedError

    def release(self) -> None:
        """Release it before the request ends; a second time does nothing."""
        self.scope.release(self, metrics.EXPLICIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return it for `numpy.asarray`."""
        array = self.to_numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"{array.dtype} cannot become {dtype} without being copied")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __repr__(self) -> str:
        about = self.description
        shape = metrics.shape_text(about.shape)
        text = f"{about.dtype} {shape}, {about.size} bytes, owner {about.owner}{', released' if self._end else ''}"
        return f"<{about.kind} reference {about.ref[:8]}, {text}>"

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise ReferenceMisused(
            f"{self} cannot be pickled: {_RULE}, and in the processes that serve it; pass it as an argument"
        )

    def __copy__(self) -> NoReturn:
        raise ReferenceMisused(
            f"{self} cannot be copied: {_RULE}, which a copy would not; copy the data: ref.to_numpy().copy()"
        )

    def __deepcopy__(self, _memo: Any) -> NoReturn:
        self.__copy__()

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __del__(self) -> None:
        # A request keeps its references; those of a request to come have only their creator.
        if not self._end and self.is_local and not sys.is_finalizing():
            abandoned = Abandoned(self.description, self._buffer, self.created, self.call_site)
            reaper.submit(partial(self.scope.on_abandoned, abandoned))

    def open(self) -> Buffer:
        """Return the buffer. Raises `ReferenceReleased`, and `ZeroCopyUnavailable` for a description without memory."""
        if self._end:
            raise ReferenceReleased(self._end)
        if self._buffer is None:
            raise ZeroCopyUnavailable(f"{self} has no memory here: the peer sent its description only")
        return self._buffer

    def fill(self, buffer: Buffer) -> None:
        """Set the buffer of a reference that was received without. Raises `ReferenceRefused` if it does not fit."""
        check(self.description, buffer.size)
        self._buffer = buffer

    def end(self, message: str) -> bool:
        """Close the buffer, and refuse further use with `message`; return whether views are held elsewhere."""
        self._end = message
        buffer, self._buffer = self._buffer, None
        return buffer is not None and buffer.close()


# The mark of the JSON form, for code that must refuse references and does not import this module.
setattr(Reference, ZERO_COPY, True)


class TensorReference(Reference):
    """A reference to a tensor: `numpy.from_dlpack(ref)`, `torch.from_dlpack(ref)`, `ref.to_numpy()`."""

    __slots__ = ()

    def to_numpy(self) -> NDArray[Any]:
        """Return it as a read-only array, without copying."""
        return tensors.array(self.description, self.open().view())

    def to_arrow(self) -> pa.Array:
        """Return a tensor of one dimension as an Arrow array, without copying; booleans are copied into bits."""
        pa = libraries.pyarrow("Arrow arrays")
        if len(self.shape) != 1:
            raise ReferenceRefused(
                f"{self} has {len(self.shape)} dimensions, and Arrow's arrays have one; use to_numpy"
            )
        return pa.array(self.to_numpy())

    def value(self) -> NDArray[Any]:
        return self.to_numpy()

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export by the DLPack protocol, read-only.

        A consumer before DLPack 1.0, which has no read-only flag, gets a copy; it gets
        `BufferError` if it forbids that with `copy=False`. Other devices than the CPU are refused with `BufferError`.
        """
        if dl_device is not None and tuple(dl_device) != _CPU:
            raise BufferError(f"{self} is on the cpu, and cannot be exported to DLPack device {dl_device}")
        array = self.to_numpy()
        if max_version is None or max_version < (1, 0):
            if copy is False:
                raise BufferError(f"{self} is read-only, which needs DLPack 1.0, and copying is forbidden")
            return array.copy().__dlpack__(stream=stream)
        return array.__dlpack__(stream=stream, max_version=max_version, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU


class ArrowReference(Reference):
    """A reference to a value of Arrow's: `pyarrow.table(ref)`, `pyarrow.array(ref)`, `ref.to_arrow()`."""

    __slots__ = ()

    def to_arrow(self) -> Any:
        """Return the table, record batch or array, without copying. Raises `ReferenceRefused` for malformed data."""
        return tables.read(self.description, self.open().view())

    def to_numpy(self) -> NDArray[Any]:
        """Return an Arrow array of numbers without nulls as a read-only array, without copying."""
        pa = libraries.pyarrow()
        found = self.to_arrow()
        if not isinstance(found, pa.Array):
            raise ReferenceRefused(f"{self} is a {type(found).__name__}, and no array; use to_arrow")
        try:
            return found.to_numpy(zero_copy_only=True)  # type: ignore[no-any-return]
        except pa.ArrowException as error:
            raise ReferenceRefused(f"{self} cannot be had as a NumPy array without copying: {error}") from None

    def value(self) -> Any:
        return self.to_arrow()


class ArrowStreamReference(ArrowReference):
    """A table or a chunked array."""

    __slots__ = ()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)


class ArrowArrayReference(ArrowReference):
    """A record batch or an array."""

    __slots__ = ()

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_array__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        """Export the type, or for a record batch the schema, by Arrow's PyCapsule interface."""
        found = self.to_arrow()
        kind = found.schema if self.description.form is Form.BATCH else found.type
        return kind.__arrow_c_schema__()


class DescribedReference(Reference):
    """A reference of a peer that shares no memory, such as an Elixir authority: the description in `payload` alone."""

    __slots__ = ("payload",)

    def __init__(self, scope: ReferenceScope, description: Description, payload: dict[str, Any]) -> None:
        super().__init__(scope, description, None)
        self.payload = payload

    def to_numpy(self) -> NoReturn:
        """Raise `ZeroCopyUnavailable`."""
        self.open()
        raise AssertionError("it has no memory")

    to_arrow = value = to_numpy


def reference_for(
    scope: ReferenceScope,
    description: Description,
    buffer: Buffer | None,
    *,
    is_local: bool = False,
    call_site: str = "",
) -> Reference:
    """Return a reference of the class with the protocols of its content."""
    if description.kind is Kind.DLPACK:
        return TensorReference(scope, description, buffer, is_local=is_local, call_site=call_site)
    streamed = description.form in (Form.TABLE, Form.CHUNKED)
    made = ArrowStreamReference if streamed else ArrowArrayReference
    return made(scope, description, buffer, is_local=is_local, call_site=call_site)


def check(description: Description, size: int) -> None:
    """Raise `ReferenceRefused` unless the description fits memory of `size` bytes."""
    (tensors if description.kind is Kind.DLPACK else tables).check(description, size)
