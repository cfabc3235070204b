"""The references of one request, on one side of the bridge: created, received, and released when it ends."""

from __future__ import annotations

import mmap
import secrets
import threading
import weakref
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from snakepit_otel import telemetry
from snakepit_otel.errors import (
    ReferenceMisused,
    ReferenceRefused,
    ReferenceReleased,
    WorkerExited,
    ZeroCopyLimitExceeded,
    ZeroCopyUnavailable,
)
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy import _metrics as reports
from snakepit_otel.zero_copy._descriptor import Description, Form, Kind, Owner
from snakepit_otel.zero_copy._exchange import Exchange, ExchangeUnavailable
from snakepit_otel.zero_copy._limits import Limits
from snakepit_otel.zero_copy._memory import Allocation, Buffer
from snakepit_otel.zero_copy._reference import Abandoned, DescribedReference, Reference, check, reference_for
from snakepit_otel.zero_copy.formats import arrow as tables
from snakepit_otel.zero_copy.formats import dlpack as tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Copying(NamedTuple):
    """A reference whose bytes are to be copied over gRPC, and why."""

    reference: Reference
    reason: str
    started: float


class _Placed(NamedTuple):
    description: Description
    buffer: Buffer


def _labels(scope: Scope, kind: Kind, _place: Any, _site: str) -> telemetry.AttributeSet:
    return telemetry.interned(
        {names.SNAKEPIT_ZERO_COPY_OWNER: scope.owner.value, names.SNAKEPIT_ZERO_COPY_KIND: kind.value}
    )


def _created(reference: Reference) -> dict[str, Any]:
    return reports.details_of(reference.description)


def _release_labels(_scope: Scope, about: Description, reason: str, _lifetime: float) -> telemetry.AttributeSet:
    return telemetry.interned(
        {
            names.SNAKEPIT_ZERO_COPY_OWNER: about.owner.value,
            names.SNAKEPIT_ZERO_COPY_KIND: about.kind.value,
            names.SNAKEPIT_ZERO_COPY_RELEASE_REASON: reason,
        }
    )


def _release_details(_scope: Scope, about: Description, _reason: str, _lifetime: float) -> dict[str, Any]:
    return {names.SNAKEPIT_ZERO_COPY_REFERENCE_ID: about.ref, names.SNAKEPIT_ZERO_COPY_SIZE: about.size}


class Scope:
    """The references of one request on the side of `owner`.

    `exchange` leads to the other side; without one, for the reason `no_exchange`, bytes have to be copied. `request`
    is the request's random id, None where references wait for a request to come. `foreign` says that the peer is
    none of ours and may send descriptions of memory that nobody shares.
    """

    waits = False
    """Whether its references wait for a request, and may be passed to one."""

    def __init__(
        self,
        owner: Owner,
        exchange: Exchange | None = None,
        settings: Limits | None = None,
        *,
        request: str | None = None,
        session_id: str | None = None,
        tool: str = "",
        strict: bool = False,
        no_exchange: str = "unreachable",
        foreign: bool = False,
        on_close: Callable[[str], None] | None = None,
    ) -> None:
        self.owner = owner
        self.settings = settings or Limits()
        self.request = request
        self.session_id = session_id
        self.strict = strict
        self._exchange = exchange
        self._no_exchange = no_exchange
        self._foreign = foreign
        self._tool = tool
        self._on_close = on_close
        self._references: MutableMapping[str, Reference] = {}
        self._bytes = 0
        self._closed = ""
        self.to_send: list[Copying] = []
        """References whose bytes the bridge has to copy to the other side before it is told of them."""
        self.to_fetch: list[Copying] = []
        """References whose bytes the bridge has to copy from the other side before they are used."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the request, of which a worker may have taken along what it had published."""
        self.close(reports.PEER_LOST if isinstance(error, WorkerExited) else reports.REQUEST_END)

    @property
    def in_use(self) -> bool:
        """Whether there are references."""
        return bool(self._references)

    def from_numpy(self, array: NDArray[Any], site: str) -> Reference:
        """Return a reference to a copy of the array, or to the array itself if `empty` made it."""
        if not isinstance(array, libraries.numpy().ndarray):
            kind = type(array)
            raise ReferenceRefused(f"a {kind.__module__}.{kind.__qualname__} is no NumPy array; try from_dlpack")

        def place() -> _Placed:
            elements = tensors.import_dlpack(array)
            layout = tensors.layout_like(elements)
            self._admit(layout.bytes)
            allocation = _allocation_of(elements)
            if allocation is not None and allocation.size == layout.bytes and _claimed(elements):
                return _Placed(self._describe(layout), allocation.seal())
            return _Placed(self._describe(layout), self._place(tensors.parts(elements, layout), layout.bytes))

        return self._create(Kind.DLPACK, place, site)

    def from_arrow(self, value: Any, site: str) -> Reference:
        """Return a reference to a copy of a table, record batch or array of Arrow's."""

        def place() -> _Placed:
            content = tables.content_of(value)
            pieces = tables.parts(content)
            size = sum(map(len, pieces))
            self._admit(size)
            description = Description(
                Kind.ARROW, self.owner, _new_id(), size, content.dtype, content.shape, form=content.form
            )
            return _Placed(description, self._place(pieces, size))

        return self._create(Kind.ARROW, place, site)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return a writable array of zeros in memory that can be shared without being copied."""
        layout = tensors.layout_of(shape, dtype)
        self._admit(layout.bytes)
        if not self.settings.enabled:
            return tensors.writable(layout, mmap.mmap(-1, max(layout.bytes, 1)))
        try:
            allocation = Allocation(layout.bytes)
        except OSError as error:
            raise ZeroCopyUnavailable(f"no memory that can be shared: {error}") from None
        view = allocation.claim()
        _allocations[view] = allocation
        return tensors.writable(layout, view)

    def send(self, value: Any) -> dict[str, Any]:
        """Return the JSON form of a reference, or of an array or a table, which gets one; the other side can fetch it.

        Raises `ReferenceMisused` for a reference of another request, `ReferenceReleased` for a released one.
        """
        made = self.made_of(value)
        if not isinstance(made, Reference):
            return made.to_json()
        self._adopt(made)
        if not made.sent:
            self._publish(made)
        return made.payload if isinstance(made, DescribedReference) else made.description.to_json()

    def receive(self, form: dict[str, Any]) -> Reference:
        """Return the reference that the other side has sent. Raises `ReferenceRefused`, and what the exchange does."""
        self._check_open()
        if self._foreign and not self._is_ours(form):
            return DescribedReference(self, _described(form), dict(form))
        description = Description.from_json(form)
        known = self._references.get(description.ref)
        if known is not None:
            known.description.check_same(description)
            return known
        if description.data is not None:
            data = description.data
            if description.size != len(data):
                raise ReferenceRefused(f"the reference says bytes {description.size}, but has {len(data)}")
            check(description, len(data))
            return self._keep(reference_for(self, description, Buffer.of([memoryview(data)], len(data), shared=False)))
        if len(self._references) >= self.settings.max_request_references:
            raise over("references in one request", len(self._references) + 1, self.settings, "max_request_references")
        started = perf_counter()
        try:
            if self._exchange is None:
                raise ExchangeUnavailable(self._no_exchange)
            record, buffer = self._exchange.fetch(self.request, description.ref)
        except ExchangeUnavailable as unavailable:
            return self._copy_later(description, unavailable.reason, started)
        try:
            record.check_same(description)
            check(description, buffer.size)
        except ReferenceRefused:
            buffer.close()
            raise
        reference = self._keep(reference_for(self, description, buffer))
        # Mapped now, so that no descriptor stays open for as long as the request runs.
        buffer.view()
        buffer.close_descriptor()
        reports.imported(description, reports.STREAM if description.copy else reports.SHM, started, self.session_id)
        return reference

    def _is_ours(self, form: dict[str, Any]) -> bool:
        """Say whether a foreign peer's description is of memory that it has placed with us, or has its bytes in it."""
        metadata = form.get("metadata")
        if isinstance(metadata, dict) and "data" in metadata:
            return True
        return self._exchange is not None and self._exchange.has(str(form.get("ref")))

    def take(self, form: dict[str, Any]) -> Any:
        """Return the array or the table of a result, which is the caller's to keep; its reference is spent."""
        reference = self.receive(form)
        value = reference.value()
        # What the caller holds of it is his by right, and not counted as held for too long.
        reference.given = True
        if reference.mine:
            # The tool returned what it was given; released with the request, like all that was passed to it.
            return value
        self._references.pop(reference.description.ref, None)
        reference.finish(f"{reference} was spent when the result was taken")
        if self._exchange is not None and reference.description.data is None:
            self._exchange.release(self.request, reference.description.ref)
        return value

    def fetched(self, copying: Copying, buffer: Buffer) -> None:
        """Give a reference the bytes that were copied for it."""
        copying.reference.fill(buffer)
        about = copying.reference.description
        reports.imported(about, reports.STREAM, copying.started, self.session_id)
        reports.fell_back(about, copying.reason, copying.started, self.session_id)

    def copied(self, copying: Copying) -> None:
        """Note that a reference's bytes have been copied to the other side."""
        about = copying.reference.description
        reports.exported(about, reports.STREAM, copying.started, self.session_id)
        reports.fell_back(about, copying.reason, copying.started, self.session_id)

    def release(self, reference: Reference, reason: str) -> None:
        """Release one reference; a second time does nothing."""
        with _releasing:
            if reference.released:
                return
            why = _WHY[reason].format(reference, f" of session {self.session_id!r}" if self.session_id else "")
            held = reference.finish(why)
        self._references.pop(reference.description.ref, None)
        if held and not reference.given:
            reports.outlived(reference.description, self._tool)
        if not reference.mine:
            return
        self._bytes -= reference.description.size
        if reason == reports.EXPLICIT and reference.sent and self._exchange is not None:
            self._exchange.release(self.request, reference.description.ref)
        self._count_release(reference.description, reason, monotonic() - reference.created)
        if self.strict and reference.site and not reference.sent and reason != reports.EXPLICIT:
            reports.unused(reference.description, reference.site, reason, self.session_id)

    def account_for(self, abandoned: Abandoned) -> None:
        """Release what is left of a reference that nobody holds any more."""
        description = abandoned.description
        self._bytes -= description.size
        if abandoned.buffer is not None and abandoned.buffer.close():
            reports.outlived(description, self._tool)
        self._count_release(description, reports.EXPIRED, monotonic() - abandoned.created)
        if self.strict:
            reports.unused(description, abandoned.site, reports.EXPIRED, self.session_id)

    def let_go_of_what_was_sent(self) -> None:
        """Release the references that arrays and tables got for being sent, which nobody has a handle of."""
        for reference in list(self._references.values()):
            if reference.mine and not reference.site:
                self.release(reference, reports.REQUEST_END)

    def close(self, reason: str = reports.REQUEST_END) -> None:
        """End the request: release all that is left of it, and refuse what comes later."""
        if self._closed:
            return
        self._closed = reason
        for reference in list(self._references.values()):
            if self.request is None and reference.mine and reference.sent and self._exchange is not None:
                # It was published for a request to come, which need not have come.
                self._exchange.release(None, reference.description.ref)
            self.release(reference, reason)
        if self._on_close is not None:
            self._on_close(reason)

    @telemetry.observed(names.ZERO_COPY_CREATE, labels=_labels, result=_created)
    def _create(self, _kind: Kind, place: Callable[[], _Placed], site: str) -> Reference:
        self._check_open()
        try:
            description, buffer = place()
        except OSError as error:
            raise ZeroCopyUnavailable(f"no memory to place it in: {error}") from None
        reference = reference_for(self, description, buffer, mine=True, site=site)
        self._bytes += description.size
        reports.created(description)
        return self._keep(reference)

    @telemetry.observed(names.ZERO_COPY_RELEASE, labels=_release_labels, details=_release_details)
    def _count_release(self, description: Description, reason: str, lifetime: float) -> None:
        reports.released(description, reason, lifetime)

    def _place(self, parts: Any, size: int) -> Buffer:
        return Buffer.of(parts, size, shared=self.settings.enabled)

    def _admit(self, size: int) -> None:
        limits = self.settings
        if size > limits.max_bytes:
            raise over("bytes in one reference", size, limits, "max_bytes")
        if self._bytes + size > limits.max_request_bytes:
            raise over("bytes in one request", self._bytes + size, limits, "max_request_bytes")
        if len(self._references) >= limits.max_request_references:
            raise over("references in one request", len(self._references) + 1, limits, "max_request_references")

    def _describe(self, layout: tensors.Layout) -> Description:
        return Description(
            Kind.DLPACK, self.owner, _new_id(), layout.bytes, layout.dtype, layout.shape, strides=layout.strides
        )

    def made_of(self, value: Any) -> Reference | Description:
        """Return a reference to an array or a table, or if it is small its description with its bytes in it."""
        if isinstance(value, (Reference, Description)):
            return value
        limit = self.settings.inline_bytes
        # Arrow's arrays speak DLPack as well, which knows neither text nor nulls.
        if libraries.speaks_dlpack(value) and not libraries.speaks_arrow(value):
            array = tensors.import_dlpack(value)
            if array.nbytes > limit or _allocation_of(array) is not None:
                return self.from_numpy(array, "")
            layout = tensors.layout_like(array)
            return replace(self._describe(layout), data=array.tobytes(layout.order), copy=True)  # type: ignore[arg-type]
        if not libraries.speaks_arrow(value):
            raise ReferenceRefused(
                f"a {type(value).__module__}.{type(value).__qualname__} is no tensor, table or array"
            )
        content = tables.content_of(value)
        if sum(batch.nbytes for batch in content.batches) > limit:
            return self.from_arrow(value, "")
        data = b"".join(tables.parts(content))
        return Description(
            Kind.ARROW,
            self.owner,
            _new_id(),
            len(data),
            content.dtype,
            content.shape,
            form=content.form,
            data=data,
            copy=True,
        )

    def _adopt(self, reference: Reference) -> None:
        self._check_open()
        if reference.released:
            # Says why.
            reference.open()
        other = reference.scope
        if other is self:
            return
        if not other.waits:
            raise ReferenceMisused(
                f"{reference} belongs to {other.name()} and cannot be passed to {self.name()}: "
                "a reference lives for one request; create one for each"
            )
        self._admit(reference.description.size)
        other.forget(reference)
        reference.become(self)
        self._bytes += reference.description.size
        self._keep(reference)

    def forget(self, reference: Reference) -> None:
        """Leave a reference to the request that it was for."""
        self._references.pop(reference.description.ref, None)
        self._bytes -= reference.description.size

    def name(self) -> str:
        """Return what to call the request in an error."""
        whose = f" of session {self.session_id!r}" if self.session_id else ""
        return f"the request{f' of tool {self._tool!r}' if self._tool else ''}{whose}"

    def _publish(self, reference: Reference) -> None:
        started = perf_counter()
        # What cannot be shared is copied by whoever fetches it.
        transport = reports.SHM if reference.open().shared else reports.STREAM
        try:
            if self._exchange is None:
                raise ExchangeUnavailable(self._no_exchange)
            self._exchange.publish(self.request, reference.description, reference.open())
        except ExchangeUnavailable as unavailable:
            self._refuse_to_copy(unavailable.reason)
            reference.description = reference.description.as_copy()
            self.to_send.append(Copying(reference, unavailable.reason, started))
        else:
            reports.exported(reference.description, transport, started, self.session_id)
            # Mapped, so that it can be looked at here, too; the other side has a descriptor of its own.
            reference.open().view()
            reference.open().close_descriptor()
        reference.sent = True

    def _copy_later(self, description: Description, reason: str, started: float) -> Reference:
        self._refuse_to_copy(reason)
        if description.size > self.settings.max_bytes:
            raise over("bytes in one reference", description.size, self.settings, "max_bytes")
        reference = self._keep(reference_for(self, description.as_copy(), None))
        self.to_fetch.append(Copying(reference, reason, started))
        return reference

    def _refuse_to_copy(self, reason: str) -> None:
        if not self.settings.allow_fallback:
            raise ZeroCopyUnavailable(
                f"memory cannot be shared with the other side ({reason}), and allow_fallback forbids copying"
            )

    def _keep(self, reference: Reference) -> Reference:
        self._references[reference.description.ref] = reference
        if self._closed:
            # The request has ended while the memory was made, and has not seen it.
            self.release(reference, self._closed)
            self._check_open()
        return reference

    def _check_open(self) -> None:
        if self._closed:
            raise ReferenceReleased(
                f"{self.name()} has ended, and with it its references: a reference lives for one request"
            )


_WHY = {
    reports.EXPLICIT: "{} has been released: its creator said so",
    reports.REQUEST_END: "{} has been released: its request{} has ended, and a reference lives for one request",
    reports.EXPIRED: "{} has been released: no request came for it in time",
    reports.PEER_LOST: "{} has been released: the process at the other end of its request{} is gone",
}
_releasing = threading.RLock()
_allocations: weakref.WeakKeyDictionary[Any, Allocation] = weakref.WeakKeyDictionary()


def _new_id() -> str:
    return secrets.token_hex(16)


def _allocation_of(array: NDArray[Any]) -> Allocation | None:
    view = tensors.allocated(array)
    return None if view is None else _allocations.get(view)


def _claimed(array: NDArray[Any]) -> bool:
    """Say whether what `empty` made is the caller's to seal; of several threads, the first's."""
    # What is written to it from now on is private, so it is no allocation any more.
    return _allocations.pop(tensors.allocated(array), None) is not None


def over(what: str, wanted: int, limits: Limits, setting: str) -> ZeroCopyLimitExceeded:
    """Return the error for more than a setting allows."""
    return ZeroCopyLimitExceeded.of(what, wanted, setting, getattr(limits, setting))


def _described(form: dict[str, Any]) -> Description:
    """Return what can be understood of a description that was made by somebody else."""
    kind = form.get("kind")
    owner = form.get("owner")
    size = form.get("bytes")
    shape = form.get("shape")
    return Description(
        Kind(kind) if kind in list(Kind) else Kind.DLPACK,
        Owner(owner) if owner in list(Owner) else Owner.ELIXIR,
        str(form.get("ref", "")),
        size if isinstance(size, int) else 0,
        str(form.get("dtype", "")),
        tuple(part for part in shape if isinstance(part, int)) if isinstance(shape, list) else (),
        device=str(form.get("device", "cpu")),
        form=Form.TABLE if kind == Kind.ARROW else None,
    )
