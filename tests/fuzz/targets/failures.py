"""Errors on the wire, in both directions."""

from __future__ import annotations

import json
from typing import Any

from snakepit_otel import errors
from snakepit_otel.bridge.wire.errors import from_wire, to_status, to_wire
from snakepit_otel.bridge.wire.failures import failure_in
from snakepit_otel.errors import SnakepitError, ToolError
from snakepit_otel.zero_copy import _fd_protocol as protocol
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, target

_TYPES = [*sorted(name for name in dir(errors) if isinstance(getattr(errors, name), type)), "ValueError", "", "a\nb"]
_STATUS = 8 << 10


# Contexts are made large of few bytes.
@target(base=400_000, largest=8_192)
def failures(data: bytes) -> None:
    """An error that a peer describes is one of ours or a `ToolError`, stays that on its way, and fits a status."""
    choices = Choices(data)
    text = choices.rest().decode("utf-8", "replace") if choices.chance() else json.dumps(_described(choices))
    error = from_wire(text, {"session_id": "a"})
    insist(isinstance(error, SnakepitError))
    insist(isinstance(failure_in(text).type, str))
    sent = to_wire(error, {"tool_name": "x"})
    again = from_wire(sent)
    insist(type(again) is type(error), "an error became another:", type(error), type(again))
    if isinstance(error, ToolError) and isinstance(again, ToolError):
        insist((again.type, again.message, again.traceback) == (error.type, error.message, error.traceback))
    status = to_status(error, {"tool_name": "x"})
    insist(len(status.encode()) <= _STATUS, f"a status of {len(status.encode()):,} bytes")
    insist(isinstance(from_wire(status), SnakepitError))


def _described(choices: Choices) -> Any:
    def some(of: Any) -> Any:
        return of() if choices.below(4) else choices.json()

    return {
        "type": some(lambda: choices.pick(_TYPES)),
        "message": some(choices.text) if choices.below(8) else choices.text() * 500,
        "stacktrace": some(lambda: [choices.text() for _ in range(choices.below(4))]),
        "traceback": some(choices.text),
        "context": some(
            lambda: {
                "snakepit_error": some(lambda: choices.pick(_TYPES)),
                "session_id": some(choices.text),
                "limit": choices.json(),
                "expected": choices.json(),
                "current": choices.json(),
                choices.text(): choices.json() if choices.below(4) else [choices.json()] * 2_000,
            }
        ),
    }


@target()
def broker_errors(data: bytes) -> None:
    """An error that a file-descriptor server describes is one of those of references, whatever it says."""
    choices = Choices(data)
    described: Any = choices.json()
    if choices.chance():
        described = {"type": choices.pick(_TYPES), "message": choices.json(), "passes": choices.json()}
    error = protocol.rebuild(described)
    insist(isinstance(error, SnakepitError))
    insist(protocol.rebuild(protocol.describe(error)).args == error.args or not str(error))
