"""Worker process of a pool, from its configuration to its end."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.adapters._adapter_loading import load_adapter
from snakepit_otel.adapters._main_module import MainModule
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.bridge.worker.memory import WorkerMemory
from snakepit_otel.bridge.worker.server import WorkerServer, freeze_gc
from snakepit_otel.system import event_loop
from snakepit_otel.system.heap import keep_freed_memory
from snakepit_otel.telemetry import _controls
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._limits import Limits

_THREAD_PROFILE = "thread"  # of `Profile`, whose module takes long to load


def run(control: socket.socket, spec: dict[str, Any], main: Sequence[Any] | None) -> int:
    """Serve as configured until stopped, and return the exit status; `main` is the program's main module."""
    # References made outside of a request belong to the worker, too.
    pending_scope.owner = Owner.PYTHON
    keep_freed_memory()
    telemetry.environment.mark_reported(spec.get("reported", {}))
    telemetry.log_to_stderr(
        logging.INFO,
        f"%(asctime)s {spec['worker_id']} %(levelname)s %(name)s: %(message)s",
        own_default=logging.WARNING,
    )
    try:
        event_loop.run(_serve(control, spec, MainModule(*main) if main is not None else None))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the authority must get it
        _report(control, {"failed": to_wire(error, {"worker_id": spec["worker_id"]})})
        return 1
    return 0


async def _serve(control: socket.socket, spec: dict[str, Any], main: MainModule | None) -> None:
    server = WorkerServer(
        adapter=spec["adapter"],
        listen=spec["listen"],
        local_transport=spec["local_transport"],
        serves_grpc=False,
        authority_address=spec["authority"],
        worker_id=spec["worker_id"],
        threads=spec["threads"] if spec["profile"] == _THREAD_PROFILE else 1,
        thread_safe=spec["profile"] == _THREAD_PROFILE,
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
        load=partial(load_adapter, main=main),
        memory=WorkerMemory(
            Limits(**spec["zero_copy"]),
            Path(spec["fd_server"]) if spec["fd_server"] else None,
            strict=spec["strict"],
        ),
    )
    await server.start()
    freeze_gc()
    descriptions = [vars(one) for one in server.describe_tools()]
    _report(
        control,
        {
            "tools": server.tools,
            "level": _controls.level,
            "descriptions": descriptions,
            "stop_hook": server.has_stop_hook,
        },
    )
    await server.run_until_stopped()


def _report(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")
