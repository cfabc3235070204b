"""Template of worker processes: loads this package once, and forks a worker of itself for each request for one.

A request is a line of JSON with descriptors: the worker's control socket, its standard output and error, its current
directory, and its ledger of telemetry, where it has one. The response is a line with the worker's process id.
"""

from __future__ import annotations

import array
import gc
import json
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from snakepit_otel import telemetry
from snakepit_otel.rpc.transports import LocalTransportName, transport_of
from snakepit_otel.system.process_title import LastArgument
from snakepit_otel.system.sibling_fork import ForkUnsupported, SiblingFork
from snakepit_otel.telemetry._preload import preload
from snakepit_otel.telemetry.environment.values import removed

_MAX_REQUEST_BYTES = 1 << 16
_MAX_DESCRIPTORS = 5
TITLE = "fork-server"  # in place of a worker's id in process lists


class ForkedWorker(NamedTuple):
    """A new worker process, by what it was given."""

    control: socket.socket
    ledger: int | None  # a descriptor


def serve(control: socket.socket, local_transport: LocalTransportName) -> ForkedWorker | None:
    """Fork workers until the control socket is closed; return None then, and in each new process what it was given."""
    argument = LastArgument()
    argument.replace(TITLE)
    _load_late_imports(local_transport)
    try:
        fork = SiblingFork()
    except ForkUnsupported as error:
        _respond(control, {"unsupported": str(error)})
        return None
    # Pages without objects to visit stay shared with the workers.
    gc.collect()
    gc.freeze()
    _respond(control, {"ready": True})
    while True:
        worker_id, descriptors = _receive(control)
        if worker_id is None:
            return None
        try:
            pid = fork.fork()
        except OSError as error:
            _respond(control, {"errno": error.errno})
        else:
            if pid == 0:
                control.close()
                argument.replace(worker_id)
                return _become_worker(descriptors)
            _respond(control, {"pid": pid})
        for descriptor in descriptors:
            os.close(descriptor)


def _load_late_imports(local_transport: LocalTransportName) -> None:
    """Import what this package imports only where it is needed, and these workers need."""
    transport_of("unix:", local_transport)
    import pydantic_core.core_schema  # noqa: F401 - of tools with types

    preload()


def set_variables(variables: Mapping[str, str], ledger: int | None) -> None:
    """Replace the variables of this process by those of a worker with this ledger."""
    os.environ.clear()
    # Some were removed as this package was imported, as OpenTelemetry raises for them.
    os.environ.update((name, value) for name, value in variables.items() if name not in removed)
    os.environ[telemetry.LEDGER_FILE] = f"/proc/self/fd/{ledger}" if ledger is not None else ""


def _become_worker(descriptors: list[int]) -> ForkedWorker:
    """Take the descriptors of a worker, in a session of its own, as if this process had been started with them."""
    control, output, errors, directory, *ledger = descriptors
    os.setsid()
    os.fchdir(directory)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in (output, errors, directory):
        os.close(descriptor)
    return ForkedWorker(socket.socket(fileno=control), ledger[0] if ledger else None)


def _respond(control: socket.socket, message: dict[str, object]) -> None:
    with suppress(OSError):  # the authority has ended, and this process is about to
        control.sendall(json.dumps(message).encode() + b"\n")


def _receive(control: socket.socket) -> tuple[str | None, list[int]]:
    """Return the id of the worker to be forked, None at the end, and its descriptors."""
    received = bytearray()
    descriptors = array.array("i")
    room = socket.CMSG_LEN(_MAX_DESCRIPTORS * descriptors.itemsize)
    while not received.endswith(b"\n"):
        part, ancillary, _, _ = control.recvmsg(_MAX_REQUEST_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        if not part:
            return None, []
        received += part
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % struct.calcsize("i")])
    return str(json.loads(received)["worker_id"]), list(descriptors)
