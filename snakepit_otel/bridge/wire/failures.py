"""Errors in answers, as the authority counts and logs them: what a tool raised, and what refused it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from snakepit_otel.bridge.wire.errors import OWN_ERRORS, OWN_TYPE, described_in
from snakepit_otel.bridge.wire.methods import RETRY
from snakepit_otel.bridge.wire.retries import RetryRule
from snakepit_otel.errors import (
    DeadlineExceeded,
    InvalidArguments,
    RequestRefused,
    SnakepitError,
    ToolNotFound,
    ToolRefused,
)

REFUSALS: tuple[type[SnakepitError], ...] = (InvalidArguments, RequestRefused, ToolNotFound, ToolRefused)
_REFUSED = frozenset(kind.__name__ for kind in REFUSALS)
_REFUSING_PHASES = ("decode", "dispatch")


class FailureKind(StrEnum):
    """Part of a failed request that is to blame."""

    RAISED = "raised"  # the tool, the adapter or a middleware
    REFUSED = "refused"  # the request, which did not run
    LATE = "late"  # its time


class Failure(NamedTuple):
    """An error in an answer. `frame` is the place that raised it, as Python prints it."""

    kind: FailureKind
    type: str
    message: str
    traceback: str
    frame: str
    retry: RetryRule | None


# A failing tool often raises the same again, and one answer is looked at in several places.
@lru_cache(maxsize=8)
def failure_in(description: str) -> Failure:
    """Return the error that an answer describes."""
    described = described_in(description)
    if described is None:
        return Failure(FailureKind.RAISED, "Error", description[:1_000], "", "", None)
    context = described.get("context")
    context = context if isinstance(context, Mapping) else {}
    own = context.get(OWN_TYPE)
    own = own if isinstance(own, str) and own in OWN_ERRORS else None
    traceback = str(described.get("traceback", ""))
    return Failure(
        _kind_of(own, context),
        own or described["type"],
        str(described.get("message", "")),
        traceback,
        _last_frame(traceback),
        RetryRule.read(context.get(RETRY)),
    )


def _kind_of(own: str | None, context: Mapping[str, Any]) -> FailureKind:
    if own is not None and context.get("may_have_run") is False:
        return FailureKind.REFUSED
    if own == DeadlineExceeded.__name__:
        return FailureKind.LATE
    return FailureKind.REFUSED if own in _REFUSED or context.get("phase") in _REFUSING_PHASES else FailureKind.RAISED


def _last_frame(traceback: str) -> str:
    """Return the line that names the place of the error; the stack is left out where an error must be short."""
    return traceback[traceback.rfind('\n  File "') + 1 :].strip().partition("\n")[0]
