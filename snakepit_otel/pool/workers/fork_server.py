"""Fork server of an authority: starts worker processes by forking a template that has loaded this package.

A template is good for workers that an exec would start in the same state: the same interpreter, variables, limits,
users and so on. Where there is none, another one is started; where none can be, workers are to be spawned.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from snakepit_otel.common.printable import printable
from snakepit_otel.pool.workers.fork_template import TITLE
from snakepit_otel.pool.workers.os_process import ChildProcess
from snakepit_otel.pool.workers.program import PACKAGE_PATH

_log = logging.getLogger("snakepit_otel.pool")
_MAX_TEMPLATES = 4
_MAX_REFUSED = 64
_START_TIMEOUT_S = 20.0
_FORK_TIMEOUT_S = 10.0  # it takes milliseconds
_ID_BYTES = 96  # room for a worker's id in process lists
_ATTEMPTS = 2
# What a process inherits when it is started, by the first words of the lines of /proc/thread-self/status.
_INHERITED = frozenset(
    (
        *("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
        *("NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed"),
    )
)
# Variables that the loader, the interpreter, the C library or a package reads before a worker gets its own values.
_READ_AT_START = (
    *("GLIBC_", "GRPC_", "HOME", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "OTEL_", "PROTOCOL_BUFFERS_"),
    *("PYDANTIC_", "PYTHON", "SNAKEPIT_", "SSL", "TZ", "WRAPT_"),
)


class Launch(NamedTuple):
    """What a worker process is started with. `of_worker` are the variables that may differ between workers."""

    command: Sequence[str]  # but for the worker's id
    worker_id: str
    environ: Mapping[str, str]
    of_worker: Iterable[str] = ()
    ledger: int | None = None  # a descriptor
    local_transport: str = "local"


class ForkServer:
    """Templates, and the workers that are forked of them; templates end with the block that this is entered for."""

    def __init__(self) -> None:
        self._templates: OrderedDict[Hashable, _Template] = OrderedDict()
        self._refused: dict[Hashable, None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def fork(self, launch: Launch) -> ChildProcess | None:
        """Start a worker process; None where it must be spawned. Raises `OSError` if there can be no process."""
        key = (tuple(launch.command), launch.local_transport, _inherited_state(), _fixed_variables(launch))
        for _ in range(_ATTEMPTS):
            if key in self._refused:
                return None
            template = self._templates.get(key) or self._start_template(key, launch)
            self._templates.move_to_end(key)
            # Goes on without the worker that waits, for others.
            refusal = await asyncio.shield(template.ready)
            if refusal is not None:
                self._refuse(key, refusal)
                return None
            forking = self._keep(template.fork(launch))
            try:
                child: ChildProcess | None = await asyncio.shield(forking)
            except asyncio.CancelledError:
                forking.add_done_callback(_discard)
                raise
            except _ForkRefused as error:
                # A spawn may work, or has an error of its own.
                if not error.for_now:
                    self._refuse(key, str(error))
                return None
            if child is not None:
                return child
            self._drop(key)
        self._refuse(key, "it has ended")
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the templates. Workers are not affected."""
        templates = [*self._templates.values()]
        self._templates.clear()
        for template in templates:
            template.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_template(self, key: Hashable, launch: Launch) -> _Template:
        while len(self._templates) >= _MAX_TEMPLATES:
            self._drop(next(iter(self._templates)))
        process = ChildProcess.spawn([*launch.command, TITLE.ljust(_ID_BYTES)], launch.environ)
        self._keep(process.wait())
        message = {
            "fork_server": True,
            "package_path": PACKAGE_PATH,
            "parent": os.getpid(),
            "local_transport": launch.local_transport,
        }
        template = self._templates[key] = _Template(process, self._keep(_ready(process, message)))
        return template

    def _drop(self, key: Hashable) -> None:
        template = self._templates.pop(key, None)
        if template is not None:
            template.close()

    def _refuse(self, key: Hashable, refusal: str) -> None:
        if key not in self._refused:
            _log.info("workers are spawned, as the fork server cannot be used: %s", printable(refusal))
        self._drop(key)
        while len(self._refused) >= _MAX_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = None

    def _keep(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Template:
    """One process that has loaded this package; `ready` has the reason if it cannot be forked."""

    def __init__(self, process: ChildProcess, ready: asyncio.Task[str | None]) -> None:
        self.ready = ready
        self._process = process
        self._one_at_a_time = asyncio.Lock()

    async def fork(self, launch: Launch) -> ChildProcess | None:
        """Fork a worker; None if this process has ended. Raises `_ForkRefused`, and `OSError` of its preparation."""
        async with self._one_at_a_time:
            with ExitStack() as opened:
                control, inherited = socket.socketpair()
                opened.enter_context(inherited)
                unused = opened.enter_context(ExitStack())
                unused.callback(control.close)
                descriptors = [inherited.fileno(), *(opened.enter_context(_output(number)) for number in (1, 2))]
                directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, directory)
                descriptors += [directory] if launch.ledger is None else [directory, launch.ledger]
                try:
                    async with asyncio.timeout(_FORK_TIMEOUT_S):
                        line = await self._process.exchange({"worker_id": launch.worker_id}, descriptors)
                except TimeoutError:
                    # It may be stopped; another one may not.
                    self.close()
                    return None
                response = _response_in(line) if line is not None else {}
                if not isinstance(response.get("pid", 0), int) or not response.keys() & {"pid", "errno"}:
                    return None
                if "errno" in response:
                    raise _ForkRefused(response["errno"])
                child = ChildProcess.forked(response["pid"], control)
                unused.pop_all()
                return child

    def close(self) -> None:
        """End the process, which has nothing to lose."""
        self._process.signal(signal.SIGKILL)


class _ForkRefused(Exception):
    """The kernel does not fork the template: `for_now`, or at all."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.for_now = number in (errno.EAGAIN, errno.ENOMEM)


def _response_in(line: bytes) -> dict[str, Any]:
    """Return what a template has written; empty if that is no response."""
    try:
        response = json.loads(line)
    except ValueError:
        return {}
    return response if isinstance(response, dict) else {}


def _discard(forking: asyncio.Task[ChildProcess | None]) -> None:
    if not forking.cancelled() and forking.exception() is None and (child := forking.result()) is not None:
        child.discard()


async def _ready(process: ChildProcess, message: Mapping[str, Any]) -> str | None:
    """Return None once the process can be forked, or why it cannot."""
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await process.exchange(message)
    except TimeoutError:
        process.signal(signal.SIGKILL)
        return f"it was not ready within {_START_TIMEOUT_S:g} s"
    if line is None:
        return "it ended while it started; see its own output"
    response = _response_in(line)
    if response.get("ready") is True:
        return None
    process.signal(signal.SIGKILL)
    return str(response.get("unsupported", "what it wrote is no response of a template's"))


@contextmanager
def _output(descriptor: int) -> Iterator[int]:
    """Yield the descriptor of a standard stream, or of nothing if it is closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield nothing
        finally:
            os.close(nothing)
    else:
        yield descriptor


def _fixed_variables(launch: Launch) -> frozenset[tuple[str, str]]:
    """Return the variables that a template must have been started with to be good for this worker."""
    of_worker = {name for name in launch.of_worker if not name.startswith(_READ_AT_START)}
    return frozenset(item for item in launch.environ.items() if item[0] not in of_worker)


def _inherited_state() -> Hashable:
    """Return what a process that is started now inherits, besides what it is given."""
    found: list[Any] = [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
    for name in ("thread-self/status", "self/limits", "self/cgroup", "self/oom_score_adj"):
        with suppress(OSError):  # there is no such file everywhere
            lines = Path(f"/proc/{name}").read_bytes().splitlines()
            if name.endswith("status"):
                lines = [line for line in lines if line.partition(b":")[0].decode() in _INHERITED]
            found.append(tuple(lines))
    return tuple(found)
