"""Private directories, and those that the dead leave behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest

from snakepit_otel.system.private_directory import PrivateDirectory
from tests.processes import program
from tests.users import OTHER, needs_root
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
    code = (
        "import time; from snakepit_otel.system import private_directory as d; x = d.PrivateDirectory(); time.sleep(60)"
    )
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
    abandoned = _marked(short_path / "snakepit-dead1234")

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
    (short_path / "snakepit-halfmade").mkdir()
    elsewhere = short_path / "elsewhere"
    _marked(elsewhere)
    (short_path / "snakepit-link1234").symlink_to(elsewhere)
    PrivateDirectory().close()
    assert (short_path / "snakepit-halfmade").exists()
    assert (elsewhere / "lock").exists()


def _marked(directory: Path) -> Path:
    """Make what a dead owner leaves behind."""
    directory.mkdir(mode=0o700)
    (directory / "lock").write_text(f"snakepit-otel private directory {directory.name}\n")
    (directory / "lock").chmod(0o600)
    return directory


def test_only_what_is_marked_is_removed(short_path: Path) -> None:
    """A user's own directory with a file `lock` stays, whatever its name; so does a copy of one that was marked."""
    thesis = short_path / "snakepit-checkout"
    thesis.mkdir(mode=0o700)
    (thesis / "lock").touch(mode=0o600)
    (thesis / "thesis.txt").write_text("years of work")
    copy = short_path / "snakepit-abcdefgh"
    shutil.copytree(_marked(short_path / "elsewhere-abc"), copy)
    longer = _marked(short_path / "snakepit-abcdefghi")
    abandoned = _marked(short_path / "snakepit-ab_def12")
    PrivateDirectory().close()
    assert (thesis / "thesis.txt").exists()
    assert copy.exists()
    assert longer.exists()
    assert not abandoned.exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "open to others", "lock open to others"])
def test_what_only_looks_marked_stays(short_path: Path, kind: str) -> None:
    """Neither a lock that is a link or a pipe, nor anything that others may enter, marks a directory."""
    directory = _marked(short_path / "snakepit-abcdefgh")
    lock = directory / "lock"
    if kind == "link":
        lock.rename(short_path / "real")
        lock.symlink_to(short_path / "real")
    elif kind == "pipe":
        lock.unlink()
        os.mkfifo(lock, 0o600)
    else:
        (directory if kind == "open to others" else lock).chmod(0o755)
    PrivateDirectory().close()
    assert directory.exists()


@needs_root
def test_what_another_user_has_marked_stays(short_path: Path) -> None:
    """A directory of another user's, or with another user's lock, is not opened."""
    theirs = _marked(short_path / "snakepit-abcdefgh")
    os.chown(theirs, OTHER, OTHER)
    prepared = _marked(short_path / "snakepit-hgfedcba")
    os.chown(prepared / "lock", OTHER, OTHER)
    PrivateDirectory().close()
    assert theirs.exists()
    assert prepared.exists()


def test_what_links_in_it_lead_to_stays(short_path: Path) -> None:
    """A directory is removed with the links in it, and with nothing that they lead to."""
    (short_path / "precious").mkdir()
    (short_path / "precious" / "file").touch()
    (_marked(short_path / "snakepit-abcdefgh") / "link").symlink_to(short_path / "precious")
    PrivateDirectory().close()
    assert not (short_path / "snakepit-abcdefgh").exists()
    assert (short_path / "precious" / "file").exists()


def test_it_is_made_again(short_path: Path) -> None:
    """One that somebody has removed is made again under its name, locked as before; one that is there is left alone."""
    directory = PrivateDirectory()
    path = directory.path
    assert not directory.make_again()
    shutil.rmtree(path)
    assert not directory.exists
    assert directory.make_again()
    assert directory.path == path
    PrivateDirectory().close()
    assert directory.exists
    directory.close()
    assert list(short_path.iterdir()) == []


def test_it_is_marked_again_where_somebody_has_made_its_directory() -> None:
    """A worker that starts meanwhile makes the directory of its socket, which is then locked like any other."""
    directory = PrivateDirectory()
    shutil.rmtree(directory.path)
    directory.path.mkdir(mode=0o700)
    (directory.path / "default-1.2.sock").touch()
    assert directory.make_again()
    assert (directory.path / "default-1.2.sock").exists()
    directory.close()
    assert not directory.path.exists()


@pytest.mark.parametrize("kind", ["link", pytest.param("another user's", marks=needs_root)])
def test_it_moves_where_its_name_is_taken(short_path: Path, kind: str) -> None:
    """What has taken its name is neither used nor removed."""
    directory = PrivateDirectory()
    taken = directory.path
    shutil.rmtree(taken)
    if kind == "link":
        (short_path / "elsewhere").mkdir(mode=0o700)
        taken.symlink_to(short_path / "elsewhere")
    else:
        taken.mkdir()
        os.chown(taken, OTHER, OTHER)
    assert directory.make_again()
    assert directory.path != taken
    assert directory.exists
    directory.close()
    assert taken.exists()
    assert list(taken.iterdir()) == []


def test_what_has_taken_its_name_stays_when_it_is_closed() -> None:
    """Only the directory that was made is removed at the end."""
    directory = PrivateDirectory()
    shutil.rmtree(directory.path)
    directory.path.mkdir()
    (directory.path / "file").touch()
    directory.close()
    assert (directory.path / "file").exists()
