"""Commands where another user has been first: nothing is sent there, and nothing there is obeyed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snakepit_otel import Snakepit
from snakepit_otel.bridge.client.address import authority_address
from snakepit_otel.cli.app import app
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system import default_socket as default_sockets
from snakepit_otel.system.default_socket import default_socket
from snakepit_otel.system.private_directory import bases
from tests.adapters_for_tests import Useful
from tests.processes import run
from tests.users import OTHER, needs_root

COMMANDS = [
    ["call", "login", "password=hunter2", "--session", "me"],
    ["status"],
    ["tools"],
    ["requests", "list"],
    ["requests", "cancel", "abcd"],
    ["sessions", "list"],
    ["sessions", "stats"],
    ["telemetry", "--level", "full"],
    ["restart"],
]


@pytest.fixture
def squatter(short_path: Path) -> Iterator[socket.socket]:
    """Somebody else's listener, where the user's own authority could be."""
    directory = short_path / "snakepit-otel"
    directory.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "authority.sock"))
        listener.listen()
        listener.setblocking(False)
        os.chown(directory, OTHER, OTHER)
        yield listener


@needs_root
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_calls_another_users_authority(
    squatter: socket.socket, short_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that is given leads to nobody else's socket: exit code 4, and the owner's name."""
    monkeypatch.setenv("SNAKEPIT_OTEL_ADDRESS", f"unix:{short_path}/snakepit-otel/authority.sock")
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (4, "")
    assert f"nothing was sent to {short_path}/snakepit-otel/authority.sock" in result.stderr
    assert f"belongs to user {OTHER}" in result.stderr
    assert "hunter2" not in result.stderr
    with pytest.raises(BlockingIOError):
        squatter.accept()


@needs_root
def test_another_users_directory_is_passed_over(
    squatter: socket.socket, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither serve nor a caller uses it; where there is no other place, the error says whose it is."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    assert default_socket().parent != short_path / "snakepit-otel"
    assert str(short_path) not in authority_address()
    monkeypatch.setattr(default_sockets, "bases", lambda: [next(bases())])
    with pytest.raises(ConfigurationError, match=rf"{short_path}/snakepit-otel: it belongs to user {OTHER}"):
        default_socket()


@needs_root
def test_another_users_runtime_directory(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `sudo -E` and `su`, XDG_RUNTIME_DIR is the other user's, in which root makes nothing."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    assert default_socket().parent.parent == short_path
    os.chown(short_path, OTHER, OTHER)
    assert default_socket().parent.parent != short_path
    os.chown(short_path, 0, 0)


@needs_root
async def test_serve_in_a_directory_by_another_users_link(short_path: Path) -> None:
    """A link that somebody else has made leads to no place for a socket."""
    (short_path / "real").mkdir(mode=0o700)
    (short_path / "link").symlink_to("real")
    os.lchown(short_path / "link", OTHER, OTHER)
    code, _, complaint = await run("serve", "tests.adapters_for_tests:Useful", "--socket", f"{short_path}/link/a.sock")
    assert code == 2
    assert f"a link that user {OTHER} has made" in complaint


async def test_a_ready_file_that_is_a_link(short_path: Path) -> None:
    """See tests/system/test_atomic_files.py for the rest: a worker fails rather than write through a link."""
    victim = short_path / "victim"
    victim.write_text("precious")
    (short_path / "ready").symlink_to(victim)
    command = ["worker", "--adapter", "tests.adapters_for_tests.Useful", "--port", "0"]
    environ = {"SNAKEPIT_READY_FILE": str(short_path / "ready"), "XDG_RUNTIME_DIR": str(short_path)}

    async with Snakepit(adapter=Useful, workers=1, server={"listen": "127.0.0.1:0"}) as pit:
        code, _, complaint = await run(*command, "--elixir-address", str(pit.address), environ=environ)
    assert code == 1
    assert "it is a link, which is not followed" in complaint
    assert victim.read_text() == "precious"
