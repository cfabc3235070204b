"""The session store at the command line: what survives, its check by the doctor, and its limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snakepit_otel.cli.app import app
from snakepit_otel.cli.doctor.session_store import check_session_store
from snakepit_otel.cli.session_store import survival, url_of
from snakepit_otel.sessions import SessionSettings
from tests.stores.servers import free_port


def test_what_survives() -> None:
    """Each kind of store has its line, by durability, and none shows a password."""
    assert "they end with this process" in survival(SessionSettings())
    assert "sessions.db: they survive the end of this process" in survival(SessionSettings(url=url_of("sessions.db")))
    shown = survival(SessionSettings(url="redis://:hidden@cache", durability="replica"))
    assert shown.endswith("and the end of that server")
    assert "hidden" not in shown


def test_the_doctor_opens_the_store(tmp_path: Path) -> None:
    """A store that can be used, one that is another program's file, and one that is not there."""
    tmp_path.chmod(0o700)
    assert [check.status for check in check_session_store(SessionSettings())] == ["ok"]
    good = check_session_store(SessionSettings(url=f"sqlite:///{tmp_path / 'good.db'}"))
    assert good[0].status == "ok"
    assert "0 sessions are live" in good[0].message
    (tmp_path / "bad.db").write_text("no database at all" * 100)
    (bad,) = check_session_store(SessionSettings(url=f"sqlite:///{tmp_path / 'bad.db'}"))
    assert (bad.status, bad.code) == ("problem", "bad_store")
    (away,) = check_session_store(SessionSettings(url=f"redis://:hidden@127.0.0.1:{free_port()}", timeout=200))
    assert (away.status, away.code) == ("problem", "store_unavailable")
    assert "hidden" not in away.message


def test_limits_are_shown_and_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with other limits is refused by name, until it is given those of the settings."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("SNAKEPIT_OTEL_SESSION_STORE__URL", f"sqlite:///{tmp_path / 'sessions.db'}")

    def limits(*arguments: str) -> list[int]:
        result = CliRunner().invoke(app, ["sessions", "limits", "--json", *arguments])
        assert result.exit_code == 0, result.output
        return list(json.loads(result.stdout)["max_sessions"].values())

    assert check_session_store(SessionSettings(url=f"sqlite:///{tmp_path / 'sessions.db'}"))[0].status == "ok"
    monkeypatch.setenv("SNAKEPIT_OTEL_SESSION_STORE__MAX_SESSIONS", "7")
    assert limits() == [10000, 7]
    other = SessionSettings(url=f"sqlite:///{tmp_path / 'sessions.db'}", max_sessions=7)
    assert "max_sessions is 7 here, and 10000" in check_session_store(other)[0].message
    assert limits("--set") == [7, 7]
    assert check_session_store(other)[0].status == "ok"
