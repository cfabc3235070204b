"""Fencing of workers that were replaced, or that have lost a request to another worker."""

from __future__ import annotations

import hmac
import secrets

from snakepit_otel.errors import WorkerFenced


class FencingTokens:
    """Tokens that workers get at their start and show with each call-back. Not for use by several threads."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._assigned: dict[str, str] = {}

    def issue(self, worker_id: str) -> str:
        """Return a token for a worker's call-backs, in place of an earlier one."""
        token = self._tokens[worker_id] = secrets.token_urlsafe(32)
        return token

    def revoke(self, worker_id: str) -> None:
        """Refuse further call-backs of the worker."""
        self._tokens.pop(worker_id, None)

    def assign(self, request_id: str, worker_id: str) -> None:
        """Assign the request to this worker alone."""
        self._assigned[request_id] = worker_id

    def release(self, request_id: str) -> None:
        """End the request's assignment; its clean-up may still call back."""
        self._assigned.pop(request_id, None)

    def check(self, worker_id: str, token: str, request_id: str | None = None) -> None:
        """Raise `WorkerFenced` unless the token is the worker's, and the request has not been assigned to another."""
        expected = self._tokens.get(worker_id)
        if expected is None:
            raise WorkerFenced(f"worker {worker_id!r:.80} was replaced, or never was one of ours: it may not call back")
        if not hmac.compare_digest(expected.encode(), token.encode(errors="replace")):
            raise WorkerFenced(f"the token is not the one that worker {worker_id!r:.80} was given")
        holder = self._assigned.get(request_id, worker_id) if request_id else worker_id
        if holder != worker_id:
            raise WorkerFenced(f"the request was given to worker {holder!r}: {worker_id!r} may not call back for it")
