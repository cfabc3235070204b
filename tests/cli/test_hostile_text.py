"""Commands show what others have written as text."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as admin_pb
from snakepit_otel.bridge.wire.request_listing import ListedRequest, RequestList
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.cli import addresses, output, status
from snakepit_otel.cli import app as cli
from snakepit_otel.cli.doctor import report as doctor
from snakepit_otel.cli.doctor.report import Section, problem
from snakepit_otel.common.printable import printable, printable_lines
from snakepit_otel.errors import SnakepitError, ToolError
from tests.cli.scripted import STATUS
from tests.hostile_text import HOSTILE, unsafe

NAMES = [*HOSTILE]
SENT = {name: text.encode(errors="ignore").decode() for name, text in HOSTILE.items()}
"""As protobuf lets it through."""


class Told:
    """A client whose authority answers with a text wherever it can."""

    def __init__(self, text: str, sent: str) -> None:
        self.text, self.sent = text, sent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def _info(self, session_id: str) -> admin_pb.SessionInfo:
        return admin_pb.SessionInfo(
            id=session_id, owner=self.sent, last_worker_id=self.sent, metadata={self.sent: self.sent}
        )

    async def list_sessions(self, *_: Any, **__: Any) -> list[admin_pb.SessionInfo]:
        return [self._info(session_id) for session_id in ("first", f"id{self.sent}", "last")]

    async def show_session(self, _: str) -> admin_pb.ShowSessionResponse:
        state = [admin_pb.StateEntry(key=key, json=json.dumps(self.text).encode()) for key in ("k", f"k{self.sent}")]
        return admin_pb.ShowSessionResponse(session=self._info(f"id{self.sent}"), state=state)

    async def remove_session(self, session_id: str) -> bool:
        return session_id != "none"

    async def stats(self) -> admin_pb.GetStatsResponse:
        return admin_pb.GetStatsResponse()

    async def status(self, **_: Any) -> Status:
        (pool,) = STATUS.pools
        text = self.text
        workers = tuple(replace(worker, id=text, state=text, suspect=text) for worker in pool.workers)
        pool = replace(pool, name=text, adapter=text, breaker=text, rejected={text: 1}, workers=workers)
        return replace(STATUS, version=text, run_id=text, telemetry_level=text, pools=(pool,))

    async def list_tools(self) -> list[ListedTool]:
        text = self.text
        listed = {"pool": text, "adapter": text, "description": text, "signature": text, "input_schema": {text: text}}
        return [ListedTool(name=name, **listed) for name in (text, "text")]  # type: ignore[arg-type]

    async def list_requests(self, _: int) -> RequestList:
        text = self.text
        one = ListedRequest(id=text, tool=text, session_id=text, pool=text, state=text, age_seconds=1, worker_id=text)
        return RequestList([one], 1)

    async def restart_workers(self, _: str | None, progress: Callable[[Replacement], None]) -> RestartReport:
        made = (
            Replacement(self.text, self.text, self.text, 1, None),
            Replacement(self.text, self.text, None, 0, self.text),
        )
        for one in made:
            progress(one)
        return RestartReport(made)

    async def set_telemetry(self, **_: Any) -> Any:
        return admin_pb.SetTelemetryResponse(level=self.sent, allow=[self.sent], deny=[self.sent])

    async def execute(self, tool: str, *_: Any, **__: Any) -> Any:
        if tool == "fails":
            raise ToolError(self.text, self.text, traceback=f"Traceback:\n  {self.text}")
        if tool == "refuses":
            raise SnakepitError(self.text)
        return {"text": self.text, "json": {self.text: [self.text]}, "bytes": self.text.encode(errors="ignore")}[tool]

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[str]:
        yield self.text
        yield self.text


@contextmanager
def told(name: str) -> Iterator[Callable[..., Result]]:
    """Give what runs a command whose authority answers with the text of that name."""
    client = Told(HOSTILE[name], SENT[name])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "400")
        for module in (addresses, status):
            patched.setattr(module, "Client", lambda *_, **__: client)
        patched.setattr(output.console, "_width", 400)
        yield partial(CliRunner().invoke, cli.app)


COMMANDS = [
    ("sessions", "list"),
    ("sessions", "list", "--limit", "3"),
    ("sessions", "show", "any"),
    ("sessions", "stats"),
    ("status",),
    ("tools",),
    ("tools", "text"),
    ("requests", "list"),
    ("restart",),
    ("telemetry",),
    ("call", "text"),
    ("call", "json"),
    ("call", "bytes"),
    ("call", "any", "--stream"),
    ("call", "fails"),
    ("call", "refuses"),
]


@pytest.mark.parametrize("name", NAMES)
def test_no_command_shows_more_than_text(name: str) -> None:
    """Whatever others have written, each command ends as it would, and prints nothing that drives a terminal."""
    with told(name) as run:
        for command in COMMANDS:
            result = run([*command])
            assert result.exception is None or isinstance(result.exception, SystemExit), command
            assert result.exit_code in (0, 1), command
            shown = result.stdout + result.stderr
            assert unsafe(shown) <= {"\t"}, command
            assert shown.strip(), command


@pytest.mark.parametrize("name", [name for name in NAMES if len(HOSTILE[name]) < 200])
def test_tables_have_their_rows(name: str) -> None:
    """A session's text adds no line to the table, and hides none; it is shown whole."""
    with told(name) as run, pytest.MonkeyPatch.context() as patched:
        patched.delenv("COLUMNS")
        lines = run(["sessions", "list"]).stdout.splitlines()
        assert [line.split()[0] for line in lines if line.split()[0] in ("session", "first", "last")] == [
            "session",
            "first",
            "last",
        ]
        assert len(lines) == 4
        assert f"id{printable(SENT[name], None)}" in lines[2]


@pytest.mark.parametrize("name", NAMES)
def test_json_for_scripts_has_the_values(name: str) -> None:
    """With --json the values are what they are, in a document that drives no terminal either."""
    with told(name) as run:
        listed = run(["sessions", "list", "--json"]).stdout
        assert json.loads(listed)[1]["id"] == f"id{SENT[name]}"
        assert json.loads(listed)[1]["metadata"] == {SENT[name]: SENT[name]}
        called = run(["call", "json", "--json"]).stdout
        assert json.loads(called) == {HOSTILE[name]: [HOSTILE[name]]}
        found = run(["status", "--json"]).stdout
        assert json.loads(found)["pools"][0]["name"] == HOSTILE[name]
        assert not unsafe(listed + called + found)


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_one_line(name: str) -> None:
    """An error has one line of at most a thousand characters, and its traceback is indented: none can be forged."""
    with told(name) as run:
        first, *rest = run(["call", "fails"]).stderr.split("\n")
        assert first.startswith("error: ")
        assert len(first) < 1_100
        assert all(line.startswith("  ") for line in rest if line)
        assert run(["call", "refuses"]).stderr.count("\n") == 1


def test_a_result_of_many_lines_keeps_them() -> None:
    """A text that a tool returned is printed with its lines and tabs; other text of it is not touched."""
    with told("another line") as run:
        assert run(["call", "text"]).stdout == printable_lines(HOSTILE["another line"]) + "\n"
    with told("markup") as run:
        assert run(["call", "text"]).stdout == f"{HOSTILE['markup']}\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_has_a_line_for_each_check(name: str) -> None:
    """What peers and machines say does not break the doctor's report."""
    text = HOSTILE[name]
    console = output.PlainConsole(width=100_000)
    with console.capture() as shown:
        doctor.show(console, [Section("Here", [problem("topic", text, text, "code", text)])])
    assert not unsafe(shown.get())
    assert shown.get().count("\n") == 5


def test_letters_that_an_output_has_not() -> None:
    """Where the output's encoding is a small one, text is escaped and JSON stays JSON, and nothing raises."""
    with pytest.MonkeyPatch.context() as patched:
        written = _Bytes()
        patched.setattr(sys, "stdout", written.stream)
        output.replace_unencodable()
        output.console.print("Zoë")
        output.print_json({"é": "\ud800"})
        assert written.taken() == b'Zo\\xeb\n{\n  "\\u00e9": "\\ud800"\n}\n'


class _Bytes:
    def __init__(self) -> None:
        import io

        self._raw = io.BytesIO()
        self.stream = io.TextIOWrapper(self._raw, encoding="ascii")

    def taken(self) -> bytes:
        self.stream.flush()
        return self._raw.getvalue()
