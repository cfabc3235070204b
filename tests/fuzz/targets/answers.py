"""Answers of those whom we ask: collectors, and an authority of its status."""

from __future__ import annotations

import io
from functools import lru_cache

from google.protobuf.message import DecodeError
from rich.console import Console

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as admin
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.cli.status_view import StatusView
from snakepit_otel.telemetry.export.exporters import OtlpExporter
from snakepit_otel.telemetry.export.otlp_http import HttpTransport
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, target
from tests.hostile_text import unsafe

_STATUSES = [200, 200, 200, 202, 204, 302, 400, 404, 413, 429, 500, 503]


class _Answer:
    """Stands in for a response of `requests`."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status_code, self._body = status, body
        self.headers: dict[str, str] = {}
        self.reason = "reason"

    def iter_content(self, _size: int) -> list[bytes]:
        return [self._body]

    def close(self) -> None:
        """Nothing to close."""


_answers: list[_Answer] = []


@lru_cache
def _exporter() -> OtlpExporter:
    transport = HttpTransport(OtlpSettings("traces", "http://127.0.0.1:1/v1/traces"))
    transport.session.request = lambda *_, **__: _answers[0]  # type: ignore[method-assign,assignment,return-value]
    return OtlpExporter("traces", transport, timeout=0.02)


@target(steps=400, logs_errors=True)
def otlp_answers(data: bytes) -> None:
    """What a collector answers over HTTP is taken in or not, and is no error; counts are whole numbers."""
    choices = Choices(data)
    status = choices.pick(_STATUSES)
    _answers[:] = [_Answer(status, choices.rest())]
    taken = _exporter().export_bytes(b"")
    insist(isinstance(taken.accepted, bool))
    insist(taken.rejected >= 0)


# Rich takes many steps for a table, whatever is in it.
@target(steps=1_000, base=1_000_000)
def status_answers(data: bytes) -> None:
    """What an authority says of itself is shown without a character that drives the terminal."""
    choices = Choices(data)
    message = admin.GetStatusResponse()
    if choices.chance():
        try:
            message.MergeFromString(choices.rest())
        except DecodeError:
            return
    else:
        choices.fill(message)
    status = Status.of_message(message)
    insist(Status.of_message(status.to_message()).run_id == status.run_id)
    for width in (50, 120):
        screen = io.StringIO()
        Console(file=screen, width=width, color_system=None, force_terminal=False).print(StatusView(status))
        insist(not unsafe(screen.getvalue()), "the terminal is driven by a status:", repr(screen.getvalue()))
