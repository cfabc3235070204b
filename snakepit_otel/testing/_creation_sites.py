"""Lines of code that start threads and processes and open files, mostly by Python's audit events."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary

_MAX_KEPT: Final = 10_000
_OWN: Final = f"{Path(__file__).resolve().parent.parent}/"
_LIBRARIES: Final = tuple(
    f"{path}/" for path in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} if path
)
_FROZEN: Final = "<frozen "


class CreationSites:
    """Where threads, processes, files and sockets were made since `begin`, as `file:line in function`."""

    def __init__(self) -> None:
        self.of_threads: WeakKeyDictionary[threading.Thread, str] = WeakKeyDictionary()
        self.of_sockets: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self.of_paths: dict[str, str] = {}
        self.of_commands: dict[tuple[str, ...], str] = {}
        self.last_fork: str | None = None

    def begin(self) -> None:
        """Record from now on. The hook that this installs stays, since Python has no way to remove one."""
        global _is_installed
        if not _is_installed:
            _is_installed = True
            sys.addaudithook(_audit)
        if not _recording:
            # Python has no audit event for this before 3.12.
            threading.Thread.start = _start_recorded  # type: ignore[method-assign, assignment]
        _recording.append(self)

    def end(self) -> None:
        """Record no more."""
        _recording.remove(self)
        if not _recording:
            threading.Thread.start = _start  # type: ignore[method-assign]

    def of_socket(self, descriptor: int) -> str | None:
        """Return where the socket with a descriptor was made."""
        for made, site in list(self.of_sockets.items()):
            if made.fileno() == descriptor:
                return site
        return None

    def on_open(self, path: Any, *_: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)) and len(self.of_paths) < _MAX_KEPT:
            self.of_paths[os.path.realpath(os.fsdecode(path))] = user_line()

    def on_socket(self, made: Any, *_: Any) -> None:
        self.of_sockets[made] = user_line()

    def on_command(self, _executable: Any, arguments: Any, *_: Any) -> None:
        given = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else arguments
        if len(self.of_commands) < _MAX_KEPT:
            self.of_commands[tuple(os.fsdecode(one) for one in given)] = user_line()

    def on_fork(self, *_: Any) -> None:
        self.last_fork = user_line()


def _start_recorded(thread: threading.Thread) -> None:
    for sites in _recording:
        sites.of_threads[thread] = user_line()
    _start(thread)


_start: Final = threading.Thread.start
_recording: list[CreationSites] = []
_is_installed = False
_HANDLERS: Final[dict[str, Callable[..., None]]] = {
    "open": CreationSites.on_open,
    "sqlite3.connect": CreationSites.on_open,
    "socket.__new__": CreationSites.on_socket,
    "subprocess.Popen": CreationSites.on_command,
    "os.fork": CreationSites.on_fork,
    "os.forkpty": CreationSites.on_fork,
    "os.posix_spawn": CreationSites.on_fork,
}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _recording:
        return
    handler = _HANDLERS.get(event)
    if handler is None:
        return
    for sites in _recording:
        try:
            handler(sites, *arguments)
        except Exception:  # noqa: BLE001, S112 - what a hook raises would fail the operation itself
            continue


def user_line() -> str:
    """Return the innermost line of code that is neither ours nor a library's."""
    frame: FrameType | None = sys._getframe(1)
    nearest: FrameType | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OWN, _FROZEN)):
            if not file.startswith(_LIBRARIES):
                return _shown(frame)
            nearest = nearest or frame
        frame = frame.f_back
    return "unknown" if nearest is None else _shown(nearest)


def _shown(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
