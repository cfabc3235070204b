"""Record of live sessions, and the warning of the next start."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.sessions._live_record import LiveRecord
from tests.waiting import until

RECORD = "authority.sock.sessions"


def record(directory: Path, count: int, run_id: str = "one") -> LiveRecord:
    """Return a server's record whose clock stands still."""
    return LiveRecord(directory / "authority.sock", run_id, lambda: count, now=lambda: 1e9, monotonic=lambda: 5.0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, and forget it."""
    found = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.parametrize("stopped", [True, False])
def test_sessions_that_ended_with_a_server_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stopped: bool
) -> None:
    """Whether it was stopped or killed, the next start says how many there were; the one after says nothing."""
    former = record(tmp_path, 12)
    former.begin()
    former.update()
    if stopped:
        former.close()
    record(tmp_path, 0, "two").begin()
    (warning,) = warnings(caplog)
    assert warning.startswith(
        "the 12 sessions of the server that " + ("ended at" if stopped else "was killed, or lost")
    )
    assert warning.endswith(" are gone: they were kept in its memory")
    record(tmp_path, 0, "three").begin()
    assert warnings(caplog) == []


def test_a_server_without_sessions_leaves_nothing(tmp_path: Path) -> None:
    """There is no file where there is nothing to report."""
    idle = record(tmp_path, 0)
    idle.begin()
    idle.update()
    idle.close()
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_for_this_user_and_left_to_a_successor(tmp_path: Path) -> None:
    """Only its user can read it; a server that ends later than its successor began does not write over its record."""
    old, new = record(tmp_path, 3), record(tmp_path, 7, "two")
    old.update()
    assert (tmp_path / RECORD).stat().st_mode & 0o777 == 0o600
    new.begin(report=False)
    new.update()
    old.close()
    assert '"run_id": "two", "sessions": 7' in (tmp_path / RECORD).read_text()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sessions": "9"}', '{"sessions": 9, "time": 1e300}', "[" * 9_000])
def test_what_is_no_record_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """A file with something else reports nothing, and is replaced."""
    (tmp_path / RECORD).write_text(text)
    record(tmp_path, 0).begin()
    assert warnings(caplog) == []
    assert not (tmp_path / RECORD).exists()


def test_a_file_of_others_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link, and a file that others may write to, report nothing."""
    file = tmp_path / RECORD
    file.write_text('{"run_id": "x", "sessions": 9, "time": 1000000000.0, "stopped": true}')
    file.chmod(0o666)
    record(tmp_path, 0).begin()
    file.symlink_to(tmp_path / "elsewhere")
    record(tmp_path, 0).begin()
    assert warnings(caplog) == []


async def test_the_next_start_of_a_server_warns(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server with sessions in memory that stops is missed by the next one at its socket."""
    server = {"socket": f"{short_path}/authority.sock"}
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, server=server) as pit:
        await pit.sessions.create("a")
        await until((short_path / RECORD).exists)
    caplog.clear()
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, server=server):
        pass
    assert any("the 1 sessions of the server that ended at" in warning for warning in warnings(caplog))
