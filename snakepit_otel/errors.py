"""Errors that snakepit_otel raises.

    SnakepitError
    ├── ConfigurationError
    ├── SessionError     InvalidSession, SessionNotFound, SessionQuotaExceeded (OwnerQuotaExceeded), SessionStoreFull,
    │                    SessionStoreUnavailable, StateRefused, StateConflict, NoSession
    ├── AdapterError     AdapterNotLoaded, ToolNotFound, ToolRefused, InvalidArguments, BlockingCall
    ├── ToolError        (what a tool raised)
    ├── MiddlewareError  RequestRefused, MiddlewareFailed
    ├── BridgeError      ValueRefused, MessageTooLarge, BudgetExceeded, UnsafeSocket, AuthorityUnavailable,
    │                    ClientClosed, HandOverRefused
    ├── ZeroCopyError    ReferenceRefused, ReferenceReleased, ReferenceMisused, ZeroCopyLimitExceeded,
    │                    ZeroCopyUnavailable
    └── PoolError        WorkerStartFailed, WorkerExited, WorkerFenced, WorkerBusy, SessionWorkerUnavailable,
                         PoolSaturated, CircuitOpen, PoolNotFound, QueueTimeout, DeadlineExceeded, RequestCancelled,
                         PoolNotStarted, AlreadyStarted

`reason` is an error's name on the wire, None if it has none. docs/client.md has when each is raised, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from snakepit_otel._error_base import SnakepitError

__all__ = [
    "AdapterError", "AdapterNotLoaded", "AlreadyStarted", "AuthorityUnavailable", "BlockingCall", "BridgeError",
    "BudgetExceeded", "CircuitOpen", "ClientClosed", "ConfigurationError", "DeadlineExceeded", "HandOverRefused",
    "InvalidArguments", "InvalidSession", "MessageTooLarge", "MiddlewareError", "MiddlewareFailed", "NoSession",
    "OwnerQuotaExceeded", "PoolError", "PoolNotFound", "PoolNotStarted", "PoolSaturated", "QueueTimeout",
    "ReferenceMisused", "ReferenceRefused", "ReferenceReleased", "RequestCancelled", "RequestRefused", "SessionError",
    "SessionNotFound", "SessionQuotaExceeded", "SessionStoreFull", "SessionStoreUnavailable",
    "SessionWorkerUnavailable", "SnakepitError", "StateConflict", "StateRefused", "ToolError", "ToolNotFound",
    "ToolRefused", "UnsafeSocket", "ValueRefused", "WorkerBusy", "WorkerExited", "WorkerFenced", "WorkerStartFailed",
    "ZeroCopyError", "ZeroCopyLimitExceeded", "ZeroCopyUnavailable",
]  # fmt: skip


class ConfigurationError(SnakepitError, ValueError):
    """An invalid setting; the message names the setting and what is valid."""


class SessionError(SnakepitError):
    """Base of errors of sessions."""


class InvalidSession(SessionError, ValueError, http=400, grpc="INVALID_ARGUMENT"):
    """An invalid session id, TTL or metadata."""

    reason = "invalid_session"


class SessionNotFound(SessionError, LookupError, http=404, grpc="NOT_FOUND"):
    """No live session has the id: it was never created, is deleted, or has expired."""

    reason = "not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} not found: it was never created, or has expired or been deleted")
        self.session_id = session_id


class SessionQuotaExceeded(SessionError, http=429, grpc="RESOURCE_EXHAUSTED", retryable=True):
    """The quota of live sessions is reached and the policy is to reject."""

    reason = "session_quota_exceeded"

    def __init__(self, limit: float) -> None:
        super().__init__(
            f"session quota exceeded: {limit:g} sessions are live; delete some, raise max_sessions, "
            "or set overflow='evict'"
        )
        self.limit = limit


class OwnerQuotaExceeded(SessionQuotaExceeded, http=429, grpc="RESOURCE_EXHAUSTED", retryable=True):
    """The owner has as many live sessions as `max_sessions_per_owner` allows; no policy evicts one for another."""

    reason = "owner_quota_exceeded"
    owner = ""

    def __init__(self, limit: float, owner: str) -> None:
        super().__init__(limit)
        text = f"session quota exceeded: {limit:g} sessions of owner {owner!r} are live; delete some, or raise "
        self.args = (text + "session_store.max_sessions_per_owner",)
        self.owner = owner


class SessionStoreFull(SessionError, http=503, grpc="RESOURCE_EXHAUSTED", retryable=True):
    """All sessions together are at the limit of bytes, so nothing is added; `missing` is in bytes."""

    reason = "session_store_full"
    missing = 0

    def __init__(self, missing: int, limit: int) -> None:
        super().__init__(
            f"no room in the session store: {missing} bytes too few; session_store.max_total_bytes is {limit}. "
            "Delete sessions or state, raise it, or set overflow='evict'"
        )
        self.missing = missing


class SessionStoreUnavailable(SessionError, http=503, grpc="UNAVAILABLE", may_have_run=True, retryable=True):
    """The session store cannot be reached, or did not answer in time; the operation may have taken place or not."""

    reason = "session_store_unavailable"


class StateRefused(SessionError, ValueError, may_have_run=True):
    """State that is not JSON, or that would exceed the session's byte budget."""

    reason = "state_refused"


class StateConflict(SessionError, http=409, grpc="ABORTED", may_have_run=True, retryable=True):
    """Another request has written the state since it was read; read it again and retry."""

    reason = "state_conflict"

    def __init__(self, session_id: str, what: str, expected: int, current: int) -> None:
        super().__init__(
            f"{what} of session {session_id!r} is at version {current}, not {expected}: "
            "another request wrote it; read it again and retry"
        )
        self.expected = expected
        self.current = current


class NoSession(SessionError, http=400, grpc="FAILED_PRECONDITION", may_have_run=True):
    """The request has no session, and so no state."""

    reason = "no_session"


class AdapterError(SnakepitError):
    """Base of errors of adapters and tools."""


class AdapterNotLoaded(AdapterError, ImportError):
    """The adapter cannot be imported, or is no adapter class."""


class ToolNotFound(AdapterError, LookupError, http=404, grpc="NOT_FOUND"):
    """Neither the adapter nor the authority has a tool of the name."""

    reason = "tool_not_found"


class ToolRefused(AdapterError):
    """A tool definition or registration that breaks a rule of the registry."""


class InvalidArguments(AdapterError, TypeError, http=422, grpc="INVALID_ARGUMENT"):
    """Arguments that the tool does not take: missing, unexpected or wrongly typed."""

    reason = "invalid_arguments"


class BlockingCall(AdapterError, may_have_run=True):
    """A blocking call from a coroutine, which would stop all other requests."""


class ToolError(SnakepitError, may_have_run=True):
    """An exception of a tool, or of its adapter, in another process.

    `type` and `message` are the original exception's, `stacktrace` its frames as text, `traceback`
    all of it as Python prints it, `context` the tool, session and phase.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the wire's name
        message: str,
        *,
        stacktrace: Sequence[str] = (),
        traceback: str = "",
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{type}: {message}")
        tool = (context or {}).get("tool_name")
        self.tool = tool if isinstance(tool, str) else None
        self.type = type
        self.message = message
        self.stacktrace = list(stacktrace)
        self.traceback = traceback
        self.context = dict(context or {})

    @property
    def error_type(self) -> str:
        """The original type, for `error.type`."""
        return self.type


class MiddlewareError(SnakepitError):
    """Base of errors of middleware."""


class RequestRefused(MiddlewareError, http=403, grpc="PERMISSION_DENIED"):
    """A middleware refuses the request; raised by its hooks.

    `status` is the gRPC status that remote callers get: `permission_denied`, `unauthenticated` or
    `resource_exhausted`, which is `retryable`, in `retry_after` seconds if given. Raises `ValueError` for another one.
    """

    reason = "request_refused"
    STATUSES: ClassVar = ("permission_denied", "unauthenticated", "resource_exhausted")
    _HTTP: ClassVar = {"permission_denied": 403, "unauthenticated": 401, "resource_exhausted": 429}
    status = "permission_denied"

    def __init__(self, message: str, *, status: str = "permission_denied", retry_after: float | None = None) -> None:
        if status not in self.STATUSES:
            raise ValueError(f"status is {status!r:.40}; it must be one of {', '.join(self.STATUSES)}")
        super().__init__(message, retryable=status == "resource_exhausted", retry_after=retry_after)
        self.status = status
        self.http_status, self.grpc_status = self._HTTP[status], status.upper()


class MiddlewareFailed(MiddlewareError, may_have_run=True):
    """A hook of a middleware raised something else than `RequestRefused`, which failed the request.

    The cause is what it raised, in the process that it was raised in.
    """

    reason = "middleware_failed"

    def __init__(self, middleware: str, hook: str, error: BaseException) -> None:
        super().__init__(f"middleware {middleware} failed in {hook}: {type(error).__name__}: {error}")


class BridgeError(SnakepitError):
    """Base of errors of messages and connections."""


class ValueRefused(BridgeError, ValueError, http=400, grpc="INVALID_ARGUMENT"):
    """A value that may not cross the bridge: not JSON, malformed, or pickled."""

    reason = "value_refused"


class MessageTooLarge(BridgeError, http=413, grpc="RESOURCE_EXHAUSTED"):
    """A message over the size limit of its receiver."""

    reason = "message_too_large"


class BudgetExceeded(BridgeError, http=503, grpc="RESOURCE_EXHAUSTED", retryable=True):
    """The authority's memory for this caller, or for all, is at its limit; retry when other requests have ended."""

    reason = "budget_exceeded"


class UnsafeSocket(BridgeError, PermissionError):
    """A Unix socket of another user, or in a directory that others can write to; nothing was sent."""

    reason = "unsafe_socket"


class AuthorityUnavailable(BridgeError, http=503, grpc="UNAVAILABLE", may_have_run=True, retryable=True):
    """The authority's address does not answer, or the connection broke with the request; see `may_have_run`.

    `address` is that of the authority that a `Client` cannot reach.
    """

    reason = "authority_unavailable"
    address: str | None = None


class ClientClosed(BridgeError, RuntimeError, http=503, grpc="UNAVAILABLE"):
    """The client is used after it was closed; one that was closed meanwhile has a request that may have run."""

    reason = "client_closed"


class HandOverRefused(BridgeError):
    """A running server does not let another one take its addresses; it goes on serving."""


class ZeroCopyError(SnakepitError):
    """Base of errors of references to shared memory."""


class ReferenceRefused(ZeroCopyError, ValueError, http=400, grpc="INVALID_ARGUMENT"):
    """An unsupported device, dtype or object, or a reference with a wrong description."""

    reason = "reference_refused"


class ReferenceReleased(ZeroCopyError, LookupError, may_have_run=True):
    """The reference is used after the end of its request, or after its release."""

    reason = "reference_released"


class ReferenceMisused(ZeroCopyError, TypeError, may_have_run=True):
    """A reference was copied, serialised, kept, or passed to another request."""

    reason = "reference_misused"


class ZeroCopyLimitExceeded(ZeroCopyError, http=413, grpc="RESOURCE_EXHAUSTED"):
    """A limit of size or number is reached, for now if `retryable`; the message names the setting."""

    reason = "zero_copy_limit_exceeded"

    @classmethod
    def of(cls, what: str, wanted: int, setting: str, limit: int) -> Self:
        """Return the error for `wanted` of something where `zero_copy.<setting>` allows `limit`."""
        return cls(f"{wanted} {what} are over the limit: zero_copy.{setting} is {limit}")


class ZeroCopyUnavailable(ZeroCopyError):
    """Memory cannot be shared here, and copying it is not allowed or not possible."""

    reason = "zero_copy_unavailable"


class PoolError(SnakepitError, http=503, grpc="UNAVAILABLE"):
    """Base of errors of worker processes."""


class WorkerStartFailed(PoolError, retryable=True):
    """A worker process did not become ready; the message has its last output."""

    reason = "worker_start_failed"


class WorkerExited(PoolError, http=502, may_have_run=True, retryable=True):
    """The worker died while it had the request, which may or may not have run."""

    reason = "worker_exit"


class WorkerFenced(PoolError, http=403, grpc="PERMISSION_DENIED", may_have_run=True):
    """A worker that was replaced, or whose request was given to another one, may not call back for it."""

    reason = "worker_fenced"


class WorkerBusy(PoolError, retryable=True):
    """The session's last worker has no free slot, with affinity `strict_fail_fast`; the request did not run."""

    reason = "worker_busy"


class SessionWorkerUnavailable(PoolError, retryable=True):
    """The session's last worker is gone, with a strict affinity; the request did not run.

    The session's next request may use any worker.
    """

    reason = "session_worker_unavailable"


class PoolSaturated(PoolError, retryable=True):
    """The queue is full, or too long for the request's deadline; the request did not run."""

    reason = "pool_saturated"


class CircuitOpen(PoolError, retryable=True):
    """The breaker is open, as requests in a row lost their workers; the request did not run."""

    reason = "circuit_open"


class PoolNotFound(PoolError, LookupError, http=404, grpc="NOT_FOUND"):
    """No pool has the name."""

    reason = "pool_not_found"


class QueueTimeout(PoolError, TimeoutError, retryable=True):
    """No worker had a free slot within the queue timeout; the request did not run."""

    reason = "queue_timeout"


class DeadlineExceeded(PoolError, TimeoutError, http=504, grpc="DEADLINE_EXCEEDED", may_have_run=True, retryable=True):
    """The request's deadline passed; the request may still be running."""

    reason = "deadline_exceeded"


class RequestCancelled(PoolError, grpc="CANCELLED", may_have_run=True):
    """An operator cancelled the request; the message says whether it may have run."""

    reason = "request_cancelled"


class PoolNotStarted(PoolError, retryable=True):
    """The pool is used before it was started or after it was stopped."""

    reason = "pool_not_initialized"


class AlreadyStarted(PoolError, RuntimeError, http=500, grpc="INTERNAL"):
    """Started while it is running; nothing has changed."""
