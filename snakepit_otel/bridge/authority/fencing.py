"""Which workers may call back, and for which requests."""

from __future__ import annotations

import hmac
import secrets

from snakepit_otel.errors import WorkerFenced


class FencingTokens:
    """Keeps workers that were replaced, or have lost a request to another one, from changing anything.

    A worker is known by the token that it is given at its start. Not for use by several threads.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._assigned: dict[str, str] = {}

    def issue(self, worker_id: str) -> str:
        """Let a worker call back, and return the token that it is to show; an earlier one counts no more."""
        token = self._tokens[worker_id] = secrets.token_urlsafe(32)
        return token

    def revoke(self, worker_id: str) -> None:
        """Refuse all that the worker may still ask."""
        self._tokens.pop(worker_id, None)

    def assign(self, request_id: str, worker_id: str) -> None:
        """Note that the request is this worker's, and no other's any more."""
        self._assigned[request_id] = worker_id

    def release(self, request_id: str) -> None:
        """Note that the request has ended; its clean-up may still call back."""
        self._assigned.pop(request_id, None)

    def check(self, worker_id: str, token: str, request_id: str | None = None) -> None:
        """Raise `WorkerFenced` unless the worker is admitted, shows its token and has not lost the request."""
        expected = self._tokens.get(worker_id)
        if expected is None:
            raise WorkerFenced(f"worker {worker_id!r:.80} was replaced, or never was one of ours: it may not call back")
        if not hmac.compare_digest(expected.encode(), token.encode(errors="replace")):
            raise WorkerFenced(f"the token is not the one that worker {worker_id!r:.80} was given")
        holder = self._assigned.get(request_id, worker_id) if request_id else worker_id
        if holder != worker_id:
            raise WorkerFenced(f"the request was given to worker {holder!r}: {worker_id!r} may not call back for it")
