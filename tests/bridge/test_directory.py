"""Private directories, and those that the dead leave behind."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from snakepit_otel.bridge.directory import PrivateDirectory
from tests.processes import program
from tests.waiting import until


@pytest.fixture(autouse=True)
def _own_place(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))


def test_nobody_else_may_enter() -> None:
    """The directory has mode 0700, and is gone once closed."""
    directory = PrivateDirectory()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.close()
    assert not directory.path.exists()


def test_those_in_use_stay() -> None:
    """Making another leaves the first alone."""
    first = PrivateDirectory()
    second = PrivateDirectory()
    assert first.path.exists()
    first.close()
    second.close()


async def test_those_of_the_killed_are_removed(short_path: Path) -> None:
    """What a killed owner left is shown to whoever makes the next, and then removed."""
    code = "import time; from snakepit_otel.bridge import directory as d; held = d.PrivateDirectory(); time.sleep(60)"
    async with program("-c", code, environ={"XDG_RUNTIME_DIR": str(short_path)}) as owner:
        (abandoned,) = await until(lambda: list(short_path.glob("snakepit-*/lock")))
        owner.process.kill()
        await owner.ends()
    assert abandoned.exists()
    shown: list[tuple[Path, bool]] = []
    PrivateDirectory(lambda directory: shown.append((directory, directory.exists()))).close()
    assert shown == [(abandoned.parent, True)]
    assert not abandoned.parent.exists()


def test_a_look_that_fails_stops_nobody(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If what was left cannot be looked at, that is logged, and it is removed all the same."""
    abandoned = short_path / "snakepit-dead"
    abandoned.mkdir()
    (abandoned / "lock").touch()

    def fail(_: Path) -> None:
        raise ValueError("no luck")

    PrivateDirectory(fail).close()
    assert "no luck" in caplog.text
    assert not abandoned.exists()


def test_it_is_locked_from_the_first_moment_it_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another that is made before the first is locked leaves it alone."""
    lock = fcntl.flock

    def race(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        PrivateDirectory().close()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", race)
    first = PrivateDirectory()
    assert (first.path / "lock").exists()
    first.close()


def test_what_is_not_ours_stays(short_path: Path) -> None:
    """A directory without a lock, and a link to somewhere else, are left alone."""
    (short_path / "snakepit-half-made").mkdir()
    elsewhere = short_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (short_path / "snakepit-link").symlink_to(elsewhere)
    PrivateDirectory().close()
    assert (short_path / "snakepit-half-made").exists()
    assert (elsewhere / "lock").exists()
