"""Sockets that are made under a free name, and removed only if they are the ones that were made."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.socket_files import SocketFile, make_socket
from tests.users import OTHER, needs_root


@contextmanager
def listening(path: Path, backlog: int = 8) -> Iterator[SocketFile]:
    """Listen at a path."""
    with socket.socket(socket.AF_UNIX) as listener:

        def bind(made: str) -> None:
            listener.bind(made)
            listener.listen(backlog)

        yield make_socket(path, bind)


def test_nothing_but_the_socket_is_left(short_path: Path) -> None:
    """The name under which it was made is gone, its mode is 0600, and it can be connected to."""
    path = short_path / "s"
    with listening(path) as made, socket.socket(socket.AF_UNIX) as caller:
        assert list(short_path.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o600
        assert made.exists
        caller.connect(str(path))
        made.remove()
        assert list(short_path.iterdir()) == []
        assert not made.exists


@pytest.mark.parametrize("kind", ["socket", "file", "link"])
def test_another_of_its_name_stays(short_path: Path, kind: str) -> None:
    """What has taken its name, a later server's socket above all, is not removed."""
    path = short_path / "s"
    with listening(path) as made, ExitStack() as later:
        path.unlink()
        if kind == "socket":
            later.enter_context(listening(path))
        elif kind == "file":
            path.write_text("precious")
        else:
            path.symlink_to("elsewhere")
        made.remove()
        assert os.path.lexists(path)


def test_one_that_is_busy_is_in_use(short_path: Path) -> None:
    """A listener that takes no more connections just now is one all the same."""
    path = short_path / "s"
    with listening(path, backlog=0), ExitStack() as callers:
        taken = 0
        while taken == 0:
            caller = callers.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            taken = caller.connect_ex(str(path))
        assert taken == errno.EAGAIN
        with pytest.raises(ConfigurationError, match="it is in use"), listening(path):
            pass
        assert path.is_socket()


def test_of_several_at_a_time_one_has_the_name(short_path: Path) -> None:
    """Who finds a dead one's socket removes that, and not what another has put in its place meanwhile."""
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    begin, end, made = threading.Barrier(8), threading.Event(), list[SocketFile]()

    def serve() -> None:
        begin.wait()
        try:
            with listening(path) as file:
                made.append(file)
                end.wait(60)
        except ConfigurationError:
            refused.release()

    refused = threading.Semaphore(0)
    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(7):
        assert refused.acquire(timeout=60)
    assert [file.exists for file in made] == [True]
    end.set()
    for thread in threads:
        thread.join()


@needs_root
def test_a_directory_of_another_user(short_path: Path) -> None:
    """No socket is made where another user could remove it, or put another one."""
    os.chown(short_path, OTHER, OTHER)
    with pytest.raises(ConfigurationError, match="may be entered by others"), listening(short_path / "s"):
        pass
    assert list(short_path.iterdir()) == []
    os.chown(short_path, 0, 0)
