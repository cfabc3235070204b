"""Retries on the wire: what a caller wants of them, and what the worker makes of an error."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from snakepit_otel.adapters import Retry
from snakepit_otel.adapters._retry import MAX_RETRIES, MAX_WAIT_SECONDS, wait_before
from snakepit_otel.bridge.wire.methods import RETRY
from snakepit_otel.bridge.wire.values import from_json, to_json
from snakepit_otel.errors import ConfigurationError, ValueRefused


class RetryRule(NamedTuple):
    """How often and when a request is run again after its error; times are in seconds."""

    most: int
    backoff: float
    max_backoff: float

    @classmethod
    def of(cls, retry: Retry) -> Self:
        """Return the rule of a retry."""
        return cls(retry.most, retry.backoff, retry.max_backoff)

    @classmethod
    def read(cls, given: Any) -> Self | None:
        """Return the rule that a worker gives in an error's context, within the limits of all rules."""
        if not isinstance(given, list) or len(given) != len(cls._fields):
            return None
        if not all(type(number) in (int, float) and 0 <= number < math.inf for number in given):
            return None
        most, backoff, max_backoff = given
        return cls(min(int(most), MAX_RETRIES), min(backoff, MAX_WAIT_SECONDS), min(max_backoff, MAX_WAIT_SECONDS))

    def wait(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds before the retry after `attempt` earlier ones."""
        return wait_before(attempt, self.backoff, self.max_backoff, draw)


def retry_text(retry: Any) -> str:
    """Return a retry for a request's metadata. Raises `ConfigurationError` for what is none."""
    if not isinstance(retry, Retry):
        raise ConfigurationError(f"retry is {retry!r:.100}; it must be a Retry, such as Retry(on=(TimeoutError,))")
    return to_json({"on": retry.names, **RetryRule.of(retry)._asdict()}).decode()


def retry_in(metadata: Mapping[str, str]) -> Retry | None:
    """Return the retry in a request's metadata. Raises `ValueRefused` for a malformed one."""
    text = metadata.get(RETRY)
    if text is None:
        return None
    try:
        return Retry(**from_json(text.encode()))
    except (ConfigurationError, TypeError, ValueError) as error:
        raise ValueRefused(f"request metadata {RETRY} is malformed: {error}") from None


def retry_context(error: BaseException, retry: Retry | None) -> dict[str, Any]:
    """Return what an error's context has for the authority, if the request may be run again after the error."""
    return {} if retry is None or not retry.covers(error) else {RETRY: list(RetryRule.of(retry))}
