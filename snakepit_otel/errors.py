"""Every error that snakepit_otel raises.

    SnakepitError
    ├── ConfigurationError (ValueError)      a setting that cannot be
    ├── SessionError
    │   ├── InvalidSession (ValueError)      an id, TTL or metadata that cannot be
    │   ├── SessionNotFound (LookupError)    no live session has that id
    │   ├── SessionQuotaExceeded             the quota is reached
    │   ├── SessionStoreFull                 all sessions together hold as many bytes as they may
    │   ├── StateRefused (ValueError)        state that is not JSON, or over the budget
    │   ├── StateConflict                    somebody else wrote first
    │   └── NoSession                        the request belongs to no session
    ├── AdapterError
    │   ├── AdapterNotLoaded (ImportError)   the adapter cannot be imported or is no adapter
    │   ├── ToolNotFound (LookupError)       nothing has a tool of that name
    │   ├── ToolRefused                      a tool definition or a registration that cannot be
    │   ├── InvalidArguments (TypeError)     missing, unexpected or wrongly typed arguments
    │   └── BlockingCall                     a blocking call where it would stop the event loop
    ├── ToolError                            a tool raised; carries its type, message and traceback
    ├── BridgeError
    │   ├── ValueRefused (ValueError)        a value that may not cross the bridge
    │   ├── MessageTooLarge                  a message over the limit
    │   ├── BudgetExceeded                   as much is held for callers as may be
    │   ├── UnsafeSocket (PermissionError)   a Unix socket that another user has, or could have
    │   └── AuthorityUnavailable             nobody answers at the authority's address
    ├── ZeroCopyError
    │   ├── ReferenceRefused (ValueError)    what cannot be a reference, or a reference that is not what it says
    │   ├── ReferenceReleased (LookupError)  used after its request, or after its release
    │   ├── ReferenceMisused (TypeError)     copied, serialised, kept, or passed to another request
    │   ├── ZeroCopyLimitExceeded            over a limit of size or number
    │   └── ZeroCopyUnavailable              memory cannot be shared here, and copying is not allowed
    ├── MiddlewareError
    │   ├── RequestRefused                   a middleware refused the request
    │   └── MiddlewareFailed                 a middleware raised something else
    └── PoolError
        ├── WorkerStartFailed                a worker did not become ready
        ├── WorkerExited                     the worker died with the request
        ├── WorkerFenced                     a worker that was replaced, or lost the request, calls back
        ├── WorkerBusy                       the session's own worker has no room, and no other will do
        ├── SessionWorkerUnavailable         the session's own worker is gone, and no other will do
        ├── PoolSaturated                    the queue is full, or too long for the request's deadline
        ├── QueueTimeout (TimeoutError)      no worker had room in time
        ├── DeadlineExceeded (TimeoutError)  the request's own time was up
        ├── CircuitOpen                      workers die of every request, so none is tried for a while
        ├── PoolNotFound (LookupError)       there is no pool of that name
        ├── PoolNotStarted                   used before start or after stop
        └── AlreadyStarted (RuntimeError)    started while it is running

`reason` is the word the wire uses for the error, where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

__all__ = [
    "AdapterError", "AdapterNotLoaded", "AlreadyStarted", "AuthorityUnavailable", "BlockingCall", "BridgeError",
    "BudgetExceeded", "CircuitOpen", "ConfigurationError", "DeadlineExceeded", "InvalidArguments",
    "InvalidSession", "MessageTooLarge", "MiddlewareError", "MiddlewareFailed", "NoSession", "PoolError",
    "PoolNotFound", "PoolNotStarted", "PoolSaturated", "QueueTimeout", "ReferenceMisused", "ReferenceRefused",
    "ReferenceReleased", "RequestRefused", "SessionError", "SessionNotFound", "SessionQuotaExceeded",
    "SessionStoreFull", "SessionWorkerUnavailable", "SnakepitError", "StateConflict", "StateRefused",
    "ToolError", "ToolNotFound", "ToolRefused", "UnsafeSocket", "ValueRefused", "WorkerBusy", "WorkerExited",
    "WorkerFenced", "WorkerStartFailed", "ZeroCopyError", "ZeroCopyLimitExceeded", "ZeroCopyUnavailable",
]  # fmt: skip


class SnakepitError(Exception):
    """The root of all errors that snakepit_otel raises."""

    reason: ClassVar[str | None] = None


class ConfigurationError(SnakepitError, ValueError):
    """A setting that cannot be; the message names it and says what can."""


class SessionError(SnakepitError):
    """Something about one session."""


class InvalidSession(SessionError, ValueError):
    """A session id, TTL or metadata that cannot be."""

    reason = "invalid_session"


class SessionNotFound(SessionError, LookupError):
    """No live session has that id: never created, deleted, or expired."""

    reason = "not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} not found: it was never created, or has expired or been deleted")
        self.session_id = session_id


class SessionQuotaExceeded(SessionError):
    """The quota of live sessions is reached and the policy is to reject."""

    reason = "session_quota_exceeded"

    def __init__(self, limit: float) -> None:
        super().__init__(
            f"session quota exceeded: {limit:g} sessions are live; delete some, raise max_sessions, "
            "or set overflow='evict'"
        )
        self.limit = limit


class SessionStoreFull(SessionError):
    """All sessions together hold as many bytes as they may, so nothing is added.

    `missing` is how many bytes there are too few.
    """

    reason = "session_store_full"
    missing = 0

    def __init__(self, missing: int, limit: int) -> None:
        super().__init__(
            f"no room in the session store: {missing} bytes too few; session_store.max_total_bytes is {limit}. "
            "Delete sessions or state, raise it, or set overflow='evict'"
        )
        self.missing = missing


class StateRefused(SessionError, ValueError):
    """State that is not JSON, or that would exceed the session's byte budget."""

    reason = "state_refused"


class StateConflict(SessionError):
    """The state was written by somebody else since it was read; read again and retry."""

    reason = "state_conflict"

    def __init__(self, session_id: str, what: str, expected: int, current: int) -> None:
        super().__init__(
            f"{what} of session {session_id!r} is at version {current}, not {expected}: "
            "another request wrote it; read it again and retry"
        )
        self.expected = expected
        self.current = current


class NoSession(SessionError):
    """The request belongs to no session, so it has no state."""

    reason = "no_session"


class AdapterError(SnakepitError):
    """Something about an adapter or its tools."""


class AdapterNotLoaded(AdapterError, ImportError):
    """The adapter cannot be imported, or what was found is not an adapter class."""


class ToolNotFound(AdapterError, LookupError):
    """Neither the adapter nor the authority has a tool of that name."""

    reason = "tool_not_found"


class ToolRefused(AdapterError):
    """A tool definition or registration that breaks a rule of the registry."""


class InvalidArguments(AdapterError, TypeError):
    """Arguments that the tool does not take: missing, unexpected or wrongly typed."""

    reason = "invalid_arguments"


class BlockingCall(AdapterError):
    """A blocking call from a coroutine, where it would stop every other request."""


class ToolError(SnakepitError):
    """What a tool, or its adapter, raised in another process.

    `type` and `message` are the original exception's, `stacktrace` its frames as text, `traceback`
    the whole as Python prints it, `context` says which tool, session and phase.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the wire's own name for it
        message: str,
        *,
        stacktrace: Sequence[str] = (),
        traceback: str = "",
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{type}: {message}")
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
    """Something that middleware raised."""


class RequestRefused(MiddlewareError):
    """A middleware refuses the request; raised by its hooks.

    `status` is the gRPC status that remote callers get: `permission_denied`, `unauthenticated` or
    `resource_exhausted`. Raises `ValueError` for another one.
    """

    reason = "request_refused"
    STATUSES: ClassVar = ("permission_denied", "unauthenticated", "resource_exhausted")
    status = "permission_denied"

    def __init__(self, message: str, *, status: str = "permission_denied") -> None:
        if status not in self.STATUSES:
            raise ValueError(f"status is {status!r:.40}; it must be one of {', '.join(self.STATUSES)}")
        super().__init__(message)
        self.status = status


class MiddlewareFailed(MiddlewareError):
    """A hook of a middleware raised something else than `RequestRefused`, which failed the request.

    The cause is what it raised, in the process that it was raised in.
    """

    reason = "middleware_failed"

    def __init__(self, middleware: str, hook: str, error: BaseException) -> None:
        super().__init__(f"middleware {middleware} failed in {hook}: {type(error).__name__}: {error}")


class BridgeError(SnakepitError):
    """Something about what crosses the bridge."""


class ValueRefused(BridgeError, ValueError):
    """A value that may not cross the bridge: not JSON, malformed, or pickled."""

    reason = "value_refused"


class MessageTooLarge(BridgeError):
    """A message over the size limit of its receiver."""

    reason = "message_too_large"


class BudgetExceeded(BridgeError):
    """The authority holds as much for this caller, or for all, as it may; try again when something has ended."""

    reason = "budget_exceeded"


class UnsafeSocket(BridgeError, PermissionError):
    """A Unix socket of another user's, or in a directory where others could put one; nothing was sent to it."""

    reason = "unsafe_socket"


class AuthorityUnavailable(BridgeError):
    """Nobody answers at the authority's address."""

    reason = "authority_unavailable"


class ZeroCopyError(SnakepitError):
    """Something about a reference to shared memory."""


class ReferenceRefused(ZeroCopyError, ValueError):
    """What cannot be a reference (a device, a dtype, an object), or a reference that is not what it says."""

    reason = "reference_refused"


class ReferenceReleased(ZeroCopyError, LookupError):
    """The reference is used after the request that it lived for, or after its release."""

    reason = "reference_released"


class ReferenceMisused(ZeroCopyError, TypeError):
    """What a reference is not for: to be copied, serialised, kept, or passed to another request."""

    reason = "reference_misused"


class ZeroCopyLimitExceeded(ZeroCopyError):
    """A limit of size or number is reached; the message names the setting."""

    reason = "zero_copy_limit_exceeded"
    passes = False
    """Whether it may pass: what the authority holds by now is too much, and not what is asked for."""

    @classmethod
    def of(cls, what: str, wanted: int, setting: str, limit: int) -> Self:
        """Return the error for `wanted` of something where `zero_copy.<setting>` allows `limit`."""
        return cls(f"{wanted} {what} are over the limit: zero_copy.{setting} is {limit}")


class ZeroCopyUnavailable(ZeroCopyError):
    """Memory cannot be shared here, and copying it is not allowed or not possible."""

    reason = "zero_copy_unavailable"


class PoolError(SnakepitError):
    """Something about worker processes."""


class WorkerStartFailed(PoolError):
    """A worker process did not become ready; the message has what it said."""

    reason = "worker_start_failed"


class WorkerExited(PoolError):
    """The worker died while it had the request, which may or may not have run."""

    reason = "worker_exit"


class WorkerFenced(PoolError):
    """A worker that was replaced, or whose request was given to another one, may not call back for it."""

    reason = "worker_fenced"


class WorkerBusy(PoolError):
    """The worker that the session used last has no room, and `strict_fail_fast` wants no other; it did not run."""

    reason = "worker_busy"


class SessionWorkerUnavailable(PoolError):
    """The worker that the session used last is gone, and a strict affinity wants no other; it did not run.

    The session goes on with any worker from its next request on.
    """

    reason = "session_worker_unavailable"


class PoolSaturated(PoolError):
    """The queue is full, or the request could not be done before its deadline; it did not run."""

    reason = "pool_saturated"


class CircuitOpen(PoolError):
    """Requests of this pool have lost their workers, one after the other; none is tried for a while. It did not run."""

    reason = "circuit_open"


class PoolNotFound(PoolError, LookupError):
    """There is no pool of that name."""

    reason = "pool_not_found"


class QueueTimeout(PoolError, TimeoutError):
    """No worker had room within the queue timeout; the request did not run."""

    reason = "queue_timeout"


class DeadlineExceeded(PoolError, TimeoutError):
    """The request's own timeout passed; the request may still be running."""

    reason = "deadline_exceeded"


class PoolNotStarted(PoolError):
    """The pool is used before it was started or after it was stopped."""

    reason = "pool_not_initialized"


class AlreadyStarted(PoolError, RuntimeError):
    """Started once more while it is running; nothing has changed."""
