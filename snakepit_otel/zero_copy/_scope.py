"""Scope of one request's references, on one side of the bridge: created, received, and released at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from snakepit_otel import telemetry
from snakepit_otel.errors import (
    ReferenceMisused,
    ReferenceRefused,
    ReferenceReleased,
    WorkerExited,
    ZeroCopyUnavailable,
)
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy import _libraries as libraries
from snakepit_otel.zero_copy import _metrics as metrics
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner
from snakepit_otel.zero_copy._exchange import Exchange, ExchangeUnavailable
from snakepit_otel.zero_copy._limits import Limits, check_limit
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._placement import Placed, allocate, inline_array, inline_table, place_array, place_table
from snakepit_otel.zero_copy._reference import Abandoned, DescribedReference, Reference, check, reference_for
from snakepit_otel.zero_copy.formats import dlpack as tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Copying(NamedTuple):
    """A reference whose bytes are to be copied over gRPC, with the fallback reason."""

    reference: Reference
    reason: str
    started: float


def _labels(scope: Scope, kind: Kind, _place: Any, _call_site: str) -> telemetry.AttributeSet:
    return telemetry.interned(
        {names.SNAKEPIT_ZERO_COPY_OWNER: scope.owner.value, names.SNAKEPIT_ZERO_COPY_KIND: kind.value}
    )


def _created(reference: Reference) -> dict[str, Any]:
    return metrics.details_of(reference.description)


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

    `exchange` leads to the other side; without one, for the fallback reason `no_exchange`, bytes have to be copied.
    `request` is the request's random id, None for references of a request to come. A `foreign` peer is another
    program, and may send descriptions of memory that is not shared. The bridge copies the bytes of `to_send` before it
    sends the message with the references, and those of `to_fetch` before the references are used.
    """

    is_pending = False

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
        self.to_fetch: list[Copying] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the request; `WorkerExited` means that the peer is lost, and with it what it had published."""
        self.close(metrics.PEER_LOST if isinstance(error, WorkerExited) else metrics.REQUEST_END)

    @property
    def in_use(self) -> bool:
        return bool(self._references)

    def from_numpy(self, array: NDArray[Any], call_site: str) -> Reference:
        """Return a reference to a copy of the array, or to the array itself if `empty` returned it."""
        if not isinstance(array, libraries.numpy().ndarray):
            kind = type(array)
            raise ReferenceRefused(f"a {kind.__module__}.{kind.__qualname__} is no NumPy array; try from_dlpack")

        return self._create(
            Kind.DLPACK,
            lambda: place_array(array, self.owner, self._check_limits, shared=self.settings.enabled),
            call_site,
        )

    def from_arrow(self, value: Any, call_site: str) -> Reference:
        return self._create(
            Kind.ARROW,
            lambda: place_table(value, self.owner, self._check_limits, shared=self.settings.enabled),
            call_site,
        )

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return a writable array of zeros in memory that can be shared without being copied."""
        return allocate(shape, dtype, self._check_limits, shared=self.settings.enabled)

    def send(self, value: Any) -> dict[str, Any]:
        """Return the JSON form of a reference, or of an array or a table, which gets one; the other side can fetch it.

        Raises `ReferenceMisused` for a reference of another request, `ReferenceReleased` for a released one.
        """
        sent = self.reference_or_inline(value)
        if not isinstance(sent, Reference):
            return sent.to_json()
        self._adopt(sent)
        if not sent.sent:
            self._publish(sent)
        return sent.payload if isinstance(sent, DescribedReference) else sent.description.to_json()

    def receive(self, form: dict[str, Any]) -> Reference:
        """Return the reference that the other side has sent. Raises `ReferenceRefused`, and what the exchange does."""
        self._check_open()
        if self._foreign and not self._is_shared(form):
            return DescribedReference(self, Description.of_foreign(form), dict(form))
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
        check_limit(self.settings, "max_request_references", len(self._references) + 1, "references in one request")
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
        # Map it now, so that no descriptor stays open while the request runs.
        buffer.view()
        buffer.close_descriptor()
        metrics.emit_crossing(
            names.EVENT_ZERO_COPY_IMPORT,
            description,
            metrics.STREAM if description.copy else metrics.SHM,
            started,
            self.session_id,
        )
        return reference

    def _is_shared(self, form: dict[str, Any]) -> bool:
        """Return whether a foreign peer's description is of memory that it has published here, or has its bytes."""
        metadata = form.get("metadata")
        if isinstance(metadata, dict) and "data" in metadata:
            return True
        return self._exchange is not None and self._exchange.has(str(form.get("ref")))

    def take(self, form: dict[str, Any]) -> Any:
        """Return the array or the table of a result, which the caller may keep; its reference ends."""
        reference = self.receive(form)
        value = reference.value()
        # The caller may hold views of a result: they are not counted as outliving the request.
        reference.returned = True
        if reference.is_local:
            # The tool returned an argument, which is released with the request like all arguments.
            return value
        self._references.pop(reference.description.ref, None)
        reference.end(f"{reference} was spent when the result was taken")
        if self._exchange is not None and reference.description.data is None:
            self._exchange.release(self.request, reference.description.ref)
        return value

    def fetched(self, copying: Copying, buffer: Buffer) -> None:
        copying.reference.fill(buffer)
        about = copying.reference.description
        metrics.emit_crossing(names.EVENT_ZERO_COPY_IMPORT, about, metrics.STREAM, copying.started, self.session_id)
        metrics.emit_fallback(about, copying.reason, copying.started, self.session_id)

    def copied(self, copying: Copying) -> None:
        about = copying.reference.description
        metrics.emit_crossing(names.EVENT_ZERO_COPY_EXPORT, about, metrics.STREAM, copying.started, self.session_id)
        metrics.emit_fallback(about, copying.reason, copying.started, self.session_id)

    def release(self, reference: Reference, reason: str) -> None:
        """Release one reference; a second time does nothing."""
        with _releasing:
            if reference.released:
                return
            session = f" of session {self.session_id!r}" if self.session_id else ""
            held = reference.end(_END_MESSAGES[reason].format(reference, session))
        self._references.pop(reference.description.ref, None)
        if held and not reference.returned:
            self.on_outlived(reference.description)
        if not reference.is_local:
            return
        self._bytes -= reference.description.size
        if reason == metrics.EXPLICIT and reference.sent and self._exchange is not None:
            self._exchange.release(self.request, reference.description.ref)
        self._count_release(reference.description, reason, monotonic() - reference.created)
        if self.strict and reference.call_site and not reference.sent and reason != metrics.EXPLICIT:
            metrics.report_unused(reference.description, reference.call_site, reason, self.session_id)

    def on_abandoned(self, abandoned: Abandoned) -> None:
        description = abandoned.description
        self._bytes -= description.size
        if abandoned.buffer is not None and abandoned.buffer.close():
            self.on_outlived(description)
        self._count_release(description, metrics.EXPIRED, monotonic() - abandoned.created)
        if self.strict:
            metrics.report_unused(description, abandoned.call_site, metrics.EXPIRED, self.session_id)

    def on_outlived(self, description: Description) -> None:
        metrics.record_outlived_view(description, self._tool)

    def release_sent(self) -> None:
        """Release the references that were made to send arrays and tables; no code has a handle of them."""
        for reference in list(self._references.values()):
            if reference.is_local and not reference.call_site:
                self.release(reference, metrics.REQUEST_END)

    def close(self, reason: str = metrics.REQUEST_END) -> None:
        """End the request: release its references, and refuse further ones."""
        if self._closed:
            return
        self._closed = reason
        for reference in list(self._references.values()) if self._references else ():
            if self.request is None and reference.is_local and reference.sent and self._exchange is not None:
                # It was published for a request to come, which may never have come.
                self._exchange.release(None, reference.description.ref)
            self.release(reference, reason)
        if self._on_close is not None:
            self._on_close(reason)

    @telemetry.observed(names.ZERO_COPY_CREATE, labels=_labels, result=_created)
    def _create(self, _kind: Kind, place: Callable[[], Placed], call_site: str) -> Reference:
        self._check_open()
        try:
            description, buffer = place()
        except OSError as error:
            raise ZeroCopyUnavailable(f"no memory to place it in: {error}") from None
        reference = reference_for(self, description, buffer, is_local=True, call_site=call_site)
        self._bytes += description.size
        metrics.record_creation(description)
        return self._keep(reference)

    @telemetry.observed(names.ZERO_COPY_RELEASE, labels=_release_labels, details=_release_details)
    def _count_release(self, description: Description, reason: str, lifetime: float) -> None:
        metrics.record_own_release(description, reason, lifetime)

    def _check_limits(self, size: int) -> None:
        limits = self.settings
        check_limit(limits, "max_bytes", size, "bytes in one reference")
        check_limit(limits, "max_request_bytes", self._bytes + size, "bytes in one request")
        check_limit(limits, "max_request_references", len(self._references) + 1, "references in one request")

    def reference_or_inline(self, value: Any) -> Reference | Description:
        """Return a reference to an array or a table, or if it is small its description with its bytes in it."""
        if isinstance(value, (Reference, Description)):
            return value
        limit = self.settings.inline_bytes
        # Arrow's arrays have DLPack as well, which can represent neither text nor nulls.
        if libraries.has_dlpack(value) and not libraries.has_arrow(value):
            return inline_array(value, self.owner, limit) or self.from_numpy(tensors.import_dlpack(value), "")
        return inline_table(value, self.owner, limit) or self.from_arrow(value, "")

    def _adopt(self, reference: Reference) -> None:
        self._check_open()
        if reference.released:
            reference.open()  # raises the error with the reason
        other = reference.scope
        if other is self:
            return
        assert isinstance(other, Scope)
        if not other.is_pending:
            raise ReferenceMisused(
                f"{reference} belongs to {other.title} and cannot be passed to {self.title}: "
                "a reference lives for one request; create one for each"
            )
        self._check_limits(reference.description.size)
        other.remove(reference)
        reference.scope = self
        self._bytes += reference.description.size
        self._keep(reference)

    def remove(self, reference: Reference) -> None:
        """Remove a reference that moves to the scope of its request."""
        self._references.pop(reference.description.ref, None)
        self._bytes -= reference.description.size

    @property
    def title(self) -> str:
        """The request, as error messages call it."""
        session = f" of session {self.session_id!r}" if self.session_id else ""
        return f"the request{f' of tool {self._tool!r}' if self._tool else ''}{session}"

    def _publish(self, reference: Reference) -> None:
        started = perf_counter()
        # Memory that cannot be shared is copied by its reader.
        transport = metrics.SHM if reference.open().shared else metrics.STREAM
        try:
            if self._exchange is None:
                raise ExchangeUnavailable(self._no_exchange)
            self._exchange.publish(self.request, reference.description, reference.open())
        except ExchangeUnavailable as unavailable:
            self._refuse_to_copy(unavailable.reason)
            reference.description = reference.description.as_copy()
            self.to_send.append(Copying(reference, unavailable.reason, started))
        else:
            metrics.emit_crossing(
                names.EVENT_ZERO_COPY_EXPORT, reference.description, transport, started, self.session_id
            )
            # Map it for reads on this side; the other side has its own descriptor.
            reference.open().view()
            reference.open().close_descriptor()
        reference.sent = True

    def _copy_later(self, description: Description, reason: str, started: float) -> Reference:
        self._refuse_to_copy(reason)
        check_limit(self.settings, "max_bytes", description.size, "bytes in one reference")
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
            # The request ended while the memory was made, and has not released it.
            self.release(reference, self._closed)
            self._check_open()
        return reference

    def _check_open(self) -> None:
        if self._closed:
            raise ReferenceReleased(
                f"{self.title} has ended, and with it its references: a reference lives for one request"
            )


_END_MESSAGES = {
    metrics.EXPLICIT: "{} has been released by its creator",
    metrics.REQUEST_END: "{} has been released: its request{} has ended, and a reference lives for one request",
    metrics.EXPIRED: "{} has been released: no request came for it in time",
    metrics.PEER_LOST: "{} has been released: the process at the other end of its request{} is gone",
}
_releasing = threading.RLock()
