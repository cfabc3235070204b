"""The program of a worker process that the pool starts: `python -P worker_main.py RUN_ID WORKER_ID`.

It is started by its file, and imports nothing but the standard library before it has the authority's import path.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

_ARGUMENTS = 3  # with the program's own name


def main() -> int:
    """Serve until stopped; the control socket is standard input. The arguments are for the process list."""
    if len(sys.argv) != _ARGUMENTS:
        sys.stderr.write("worker_main is started by a pool, as: worker_main RUN_ID WORKER_ID\n")
        return 2
    control = _take_control_socket()
    with control.makefile("rb") as lines:
        spec = json.loads(lines.readline())
    # Without a program, the adapter is imported from the present path.
    package_path, import_path, main = spec.get("program") or (sys.path[:], sys.path[:], None)
    sys.path[:] = package_path

    from snakepit_otel.pool.workers.os_process import die_with_parent
    from snakepit_otel.system import standard_streams

    die_with_parent(spec["parent"])
    standard_streams.make_output_non_blocking()
    # Little of what is loaded from here on becomes garbage.
    gc.disable()
    # Imported late, so that the parent's death is noticed from the first moment.
    from snakepit_otel import telemetry
    from snakepit_otel.adapters._adapter_loading import load_adapter
    from snakepit_otel.adapters._main_module import MainModule
    from snakepit_otel.bridge.wire.errors import to_wire
    from snakepit_otel.bridge.worker.memory import WorkerMemory
    from snakepit_otel.bridge.worker.server import WorkerServer, freeze_gc
    from snakepit_otel.pool.settings import Profile
    from snakepit_otel.system import event_loop
    from snakepit_otel.telemetry import _controls
    from snakepit_otel.zero_copy._current_scope import pending_scope
    from snakepit_otel.zero_copy._descriptor import Owner
    from snakepit_otel.zero_copy._limits import Limits

    # Modules of this package are excluded from collection; the adapter's are collected like any program's.
    gc.freeze()
    gc.enable()
    # Only now: later entries of the program's import path are for the adapter.
    sys.path[:] = import_path
    # References made outside of a request belong to the worker, too.
    pending_scope.owner = Owner.PYTHON

    telemetry.environment.mark_reported(spec.get("reported", {}))
    telemetry.log_to_stderr(
        logging.INFO,
        f"%(asctime)s {spec['worker_id']} %(levelname)s %(name)s: %(message)s",
        own_default=logging.WARNING,
    )

    def report(message: dict[str, Any]) -> None:
        control.sendall(json.dumps(message).encode() + b"\n")

    async def serve() -> None:
        server = WorkerServer(
            adapter=spec["adapter"],
            listen=spec["listen"],
            authority_address=spec["authority"],
            worker_id=spec["worker_id"],
            threads=spec["threads"] if spec["profile"] == Profile.THREAD else 1,
            thread_safe=spec["profile"] == Profile.THREAD,
            token=spec["token"],
            max_message_bytes=spec["max_message_bytes"],
            grace=spec["shutdown_grace"],
            pool=spec.get("pool"),
            slot=spec.get("slot"),
            environment=spec.get("environment", {}),
            start_deadline=spec.get("start_deadline"),
            stop_hook_timeout=spec.get("stop_hook_timeout", 0.0),
            started_by=spec["started_by"],
            whole_process=True,
            middleware=spec["middleware"],
            load=partial(load_adapter, main=MainModule(*main) if main is not None else None),
            memory=WorkerMemory(
                Limits(**spec["zero_copy"]),
                Path(spec["fd_server"]) if spec["fd_server"] else None,
                strict=spec["strict"],
            ),
        )
        await server.start()
        freeze_gc()
        descriptions = [vars(one) for one in server.describe_tools()]
        report(
            {
                "tools": server.tools,
                "level": _controls.level,
                "descriptions": descriptions,
                "stop_hook": server.has_stop_hook,
            }
        )
        await server.run_until_stopped()

    try:
        event_loop.run(serve())
    except BaseException as error:  # noqa: BLE001 - whatever it is, the authority must get it
        report({"failed": to_wire(error, {"worker_id": spec["worker_id"]})})
        return 1
    return 0


def _take_control_socket() -> socket.socket:
    """Move the control socket off descriptors 0 to 2, which tools may read or write even if they are closed."""
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_WRONLY), True)
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return control


if __name__ == "__main__":
    sys.exit(main())
