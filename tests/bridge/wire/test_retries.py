"""Retries on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snakepit_otel import Retry
from snakepit_otel.bridge.wire.errors import from_wire, to_wire
from snakepit_otel.bridge.wire.failures import FailureKind, failure_in
from snakepit_otel.bridge.wire.methods import RETRY
from snakepit_otel.bridge.wire.retries import RetryRule, retry_context, retry_in, retry_text
from snakepit_otel.errors import DeadlineExceeded, InvalidArguments, StateRefused, ToolError, ValueRefused


def test_a_retry_arrives_by_names() -> None:
    """Classes become their names, and all else is as it was."""
    sent = Retry(on=(ConnectionError, "ServiceBusy"), most=7, backoff=0.5, max_backoff=2)
    assert retry_in({RETRY: retry_text(sent)}) == Retry(("ConnectionError", "ServiceBusy"), 7, 0.5, 2)
    assert retry_in({}) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "{}", '{"on": []}', '{"on": ["OSError"], "most": 1e9}', '{"on": ["OSError"], "x": 1}', "\ud800"],
)
def test_malformed_retries_are_refused(text: str) -> None:
    """What a peer sends is one error that names the metadata, whatever it is."""
    with pytest.raises(ValueRefused, match="snakepit_retry is malformed"):
        retry_in({RETRY: text})


@example([False, 0.1, 1.0])
@example([3, float("inf"), 1.0])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_a_workers_rule_is_within_the_limits(given_rule: Any) -> None:
    """A worker is a peer: its rule is none, or one that a `Retry` could have."""
    rule = RetryRule.read(given_rule)
    assert rule is None or Retry(OSError, max(rule.most, 1), rule.backoff, rule.max_backoff)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), FailureKind.RAISED),
        (StateRefused("x"), FailureKind.RAISED),
        (ToolError("KeyError", "x"), FailureKind.RAISED),
        (InvalidArguments("x"), FailureKind.REFUSED),
        (DeadlineExceeded("x"), FailureKind.LATE),
        (DeadlineExceeded("x", may_have_run=False), FailureKind.REFUSED),
    ],
)
def test_failures_have_their_kinds(error: Exception, kind: FailureKind) -> None:
    """What a tool raised is something else than a request that did not run, or one whose time was up."""
    context = {"phase": "execute", **retry_context(error, Retry(on=Exception))}
    described = to_wire(error, context)
    failure = failure_in(described)
    assert failure.kind is kind
    assert failure.type == (error.type if isinstance(error, ToolError) else type(error).__name__)
    assert failure.retry == RetryRule(3, 0.1, 30.0)
    arrived = from_wire(described)
    assert RETRY not in getattr(arrived, "context", {})
    assert failure_in(to_wire(error, {"phase": "decode"})).kind in (FailureKind.REFUSED, FailureKind.LATE)
