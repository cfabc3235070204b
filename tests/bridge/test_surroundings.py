"""Places for sockets, in surroundings of every kind."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.bridge.client.address import authority_address
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system import private_directory as directory
from snakepit_otel.system.default_socket import default_socket
from snakepit_otel.system.private_directory import PrivateDirectory
from tests.adapters_for_tests import Useful


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "TMPDIR", "SNAKEPIT_OTEL_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_tmp(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    """A machine whose /tmp is not there."""
    everywhere = directory.bases

    def bases() -> Iterator[tuple[str, Path]]:
        return ((name, base if name else short_path / "gone") for name, base in everywhere())

    monkeypatch.setattr("snakepit_otel.system.private_directory.bases", bases)
    monkeypatch.setattr("snakepit_otel.system.default_socket.bases", bases)


def made() -> Path:
    """Where a private directory is made now."""
    private = PrivateDirectory()
    try:
        assert stat.S_IMODE(private.path.stat().st_mode) == 0o700
        return private.path.parent
    finally:
        private.close()


UNFIT: dict[str, Callable[[Path], str]] = {
    "empty": lambda _: "",
    "relative": lambda _: "runtime",
    "missing": lambda folder: str(folder / "missing"),
    "a file": lambda folder: str(_file(folder / "file")),
    "too long": lambda folder: str(_folder(folder / ("x" * 60))),
    "a comma": lambda folder: str(_folder(folder / "a,b")),
    "not UTF-8": lambda folder: str(_folder(folder / "\udcff")),
    "others may write": lambda folder: str(_folder(folder / "open", 0o777)),
}
"""Values of XDG_RUNTIME_DIR that are no place for sockets."""


def _file(path: Path) -> Path:
    path.touch()
    return path


def _folder(path: Path, mode: int = 0o700) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", UNFIT)
def test_the_next_place_is_taken(short_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where XDG_RUNTIME_DIR will not do, sockets are in /tmp."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", UNFIT[name](short_path))
    assert made() == Path("/tmp")


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.usefixtures("no_tmp")
def test_then_tmpdir_is_taken(short_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where /tmp will not do either, they are in TMPDIR."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", UNFIT[name](short_path))
    monkeypatch.setenv("TMPDIR", str(temporary := _folder(short_path / "t")))
    assert made() == temporary
    assert default_socket().parent.parent in (temporary, short_path / "open")


@pytest.mark.usefixtures("no_tmp")
def test_nothing_is_left(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no place, the error names each with what is wrong there, and what to set."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "here\x1b[2J")
    monkeypatch.setenv("TMPDIR", f"/{'x' * 200}")
    with pytest.raises(ConfigurationError) as refused:
        PrivateDirectory()
    said = str(refused.value)
    assert "XDG_RUNTIME_DIR=here\\x1b[2J (not an absolute path)" in said
    assert f"{short_path}/gone (No such file or directory)" in said
    assert "(more than 60 bytes)" in said
    assert "; set XDG_RUNTIME_DIR" in said
    for find in (default_socket, authority_address):
        with pytest.raises(ConfigurationError, match="--socket"):
            find()


def test_what_others_may_write_to_is_better_than_nothing(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, no_tmp: None
) -> None:
    """A longer path, or one that others may write to, is taken where there is nothing else."""
    monkeypatch.setenv("TMPDIR", str(folder := _folder(short_path / ("x" * 30), 0o777)))
    assert made() == folder


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_place_that_is_read_only(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that may not be written to is passed over."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(_folder(short_path / "r", 0o500)))
    assert made() == Path("/tmp")
    assert default_socket().parent == Path(f"/tmp/snakepit-otel-{os.getuid()}")


def test_a_place_that_is_full(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One where the directory can be made and nothing in it is passed over, with nothing left there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    create = os.open

    def no_room(path: object, *arguments: int, **options: int) -> int:
        where = os.readlink(f"/proc/self/fd/{options['dir_fd']}") if options.get("dir_fd") is not None else ""  # noqa: PTH115
        if where.startswith(str(short_path)) and "lock" in str(path):
            raise OSError(28, "No space left on device")
        return create(path, *arguments, **options)  # type: ignore[call-overload,no-any-return]

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_room)
        assert made() == Path("/tmp")
    assert [*short_path.iterdir()] == []


@pytest.mark.parametrize("name", ["a b", "a#b?c%41", "é日本", "[x]", "a:b@c\\d"])
async def test_a_place_has_any_name(short_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Workers and callers work in a directory whose name means more in a URI."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder := _folder(short_path / name)))
    async with Snakepit(Useful, workers=1, server={"socket": default_socket()}) as pit:
        assert pit.socket == f"unix:{folder}/snakepit-otel/authority.sock" == authority_address()
        async with Client(authority_address()) as client:
            assert await client.execute("add", {"amount": 1}, session_id="s", timeout=20) == 1


async def test_a_mask_that_leaves_nothing(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a umask of 0777, directories, sockets and files can still be used by their user, and by nobody else."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    before = os.umask(0o777)
    try:
        async with Snakepit(Useful, workers=1, server={"socket": default_socket()}):
            for path in short_path.rglob("*"):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(before)


def test_callers_find_what_is_served(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address, callers take the first place with a socket of theirs, and never one of another's."""
    import socket

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(_folder(short_path / "x")))
    monkeypatch.setenv("TMPDIR", str(temporary := _folder(short_path / "t")))
    assert authority_address() == f"unix:{short_path}/x/snakepit-otel/authority.sock"
    own = _folder(temporary / f"snakepit-otel-{os.getuid()}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own / "authority.sock"))
        assert authority_address() == f"unix:{own}/authority.sock"
        shutil.move(own, elsewhere := short_path / "elsewhere")
        own.symlink_to(elsewhere)
        assert authority_address() == f"unix:{short_path}/x/snakepit-otel/authority.sock"
