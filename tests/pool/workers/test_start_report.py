"""The report of a worker at its start, and what the adapter's code may write in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import ToolNotFound, WorkerStartFailed
from snakepit_otel.pool.workers import start_report
from snakepit_otel.pool.workers.start_report import NoReport, StartReport
from snakepit_otel.telemetry import Level

NO_REPORTS = {
    "no JSON": b"junk",
    "nothing": b"",
    "a list": b"[1]",
    "a number": b"1",
    "null": b"null",
    "half": b'{"tools": [',
    "deep": b"[" * 100_000,
    "deep object": b'{"tools": ' * 5_000 + b"1" + b"}" * 5_000,
    "no UTF-8": b"\xff\xfe{}",
    "no tools": b'{"level": "full"}',
    "tools that are none": b'{"tools": 3, "level": "full"}',
    "tools that are no text": b'{"tools": [[1]], "level": "full"}',
    "tools with bad names": b'{"tools": ["\\u001b[2J"], "level": "full"}',
    "descriptions that are none": b'{"tools": [], "level": "full", "descriptions": 3}',
    "a description that is none": b'{"tools": [], "level": "full", "descriptions": [{"name": "a"}]}',
    "no level": b'{"tools": []}',
    "an unknown level": b'{"tools": [], "level": "loud"}',
    "a level that is no text": b'{"tools": [], "level": {}}',
    "a failure that is no text": b'{"failed": {"type": "x"}}',
    "controls": b"\x1b]0;title\x07" * 1_000,
}


@pytest.mark.parametrize("line", NO_REPORTS.values(), ids=NO_REPORTS.keys())
def test_what_is_no_report_is_refused_in_a_line(line: bytes) -> None:
    """Anything but a report is refused, in one short line without controls."""
    with pytest.raises(NoReport) as caught:
        start_report.read(line)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_a_report_is_read() -> None:
    """A worker that is ready has tools and a level; one that is not has an error."""
    assert start_report.read(b'{"tools": ["a"], "level": "full"}') == StartReport(["a"], Level.FULL, [])
    described = {"type": "x", "message": "y", "context": {"snakepit_error": "ToolNotFound"}}
    assert isinstance(start_report.read(json.dumps({"failed": json.dumps(described)}).encode()), ToolNotFound)


LINES = {
    "junk, and it goes on": "os.write(fd, b'junk\\n'); time.sleep(600)",
    "without end": "[os.write(fd, b'x' * 65536) for _ in range(64)]; time.sleep(600)",
    "the socket closed, and it goes on": "os.close(fd); time.sleep(600)",
    "the socket closed, and a child has it": "os.dup2(fd, 50); subprocess.Popen(['sleep', '5'], pass_fds=[50])",
    "a failure, and it goes on": 'os.write(fd, b\'{"failed": "no"}\\n\'); time.sleep(600)',
}


@pytest.mark.parametrize("code", LINES.values(), ids=LINES.keys())
async def test_a_worker_that_reports_nonsense_has_failed(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails with `WorkerStartFailed`, and the worker is gone, whatever it goes on with."""
    program = tmp_path / "worker.py"
    pids = tmp_path / "pid"
    program.write_text(
        "import os, subprocess, time\n"
        f"open({str(pids)!r}, 'w').write(str(os.getpid()))\n"
        f"fd = 0\nwhile not os.read(fd, 1 << 20).endswith(b'\\n'): pass\n{code}\n"
    )
    monkeypatch.setattr("snakepit_otel.pool.workers.process.WORKER_PROGRAM", str(program))
    monkeypatch.setattr("snakepit_otel.pool.workers.process._FAILED_START_EXIT_S", 0.3)
    with pytest.raises(WorkerStartFailed) as caught:
        await Snakepit("tests.pool.adapters:Patient", workers=1).start()
    assert len(str(caught.value)) < 1_000
    assert not Path(f"/proc/{pids.read_text()}").exists()
