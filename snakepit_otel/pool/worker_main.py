"""The program of a worker process that the pool starts: `python -m snakepit_otel.pool.worker_main RUN_ID WORKER_ID`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import orjson

from snakepit_otel.pool.process import die_with_parent

_ARGUMENTS = 3  # with the program's own name


def main() -> int:
    """Serve until told to stop; the control socket is standard input.

    The arguments say in the process list whose worker this is, and which.
    """
    if len(sys.argv) != _ARGUMENTS:
        print("a pool starts this program, as: worker_main RUN_ID WORKER_ID", file=sys.stderr)  # noqa: T201 - for a person
        return 2
    control = _take_control_socket()
    with control.makefile("rb") as lines:
        spec = orjson.loads(lines.readline())
    die_with_parent(spec["parent"])
    # Imported late, so that the parent's death is noticed from the first moment.
    from snakepit_otel import telemetry
    from snakepit_otel.bridge.failures import to_wire
    from snakepit_otel.bridge.worker_memory import WorkerMemory
    from snakepit_otel.bridge.worker_server import WorkerServer, spare_what_is_loaded
    from snakepit_otel.pool.settings import Profile
    from snakepit_otel.telemetry import controls
    from snakepit_otel.zero_copy.current import loose
    from snakepit_otel.zero_copy.description import Owner
    from snakepit_otel.zero_copy.limits import Limits

    # What is made outside of a request here is a worker's, too.
    loose.owner = Owner.PYTHON

    telemetry.log_to_stderr(
        os.environ.get("SNAKEPIT_LOG_LEVEL", "WARNING").upper(),
        f"%(asctime)s {spec['worker_id']} %(levelname)s %(name)s: %(message)s",
    )

    def report(message: dict[str, Any]) -> None:
        control.sendall(orjson.dumps(message) + b"\n")

    async def serve() -> None:
        server = WorkerServer(
            adapter=spec["adapter"],
            listen=spec["listen"],
            authority=spec["authority"],
            worker_id=spec["worker_id"],
            threads=spec["threads"] if spec["profile"] == Profile.THREAD else 1,
            thread_safe=spec["profile"] == Profile.THREAD,
            token=spec["token"],
            max_message_bytes=spec["max_message_bytes"],
            grace=spec["shutdown_grace"],
            started_by=spec["started_by"],
            whole_process=True,
            memory=WorkerMemory(
                Limits(**spec["zero_copy"]),
                Path(spec["broker"]) if spec["broker"] else None,
                strict=spec["strict"],
            ),
        )
        await server.start()
        spare_what_is_loaded()
        report({"tools": server.tools, "level": controls.level})
        await server.run_until_told_to_stop()

    try:
        asyncio.run(serve())
    except Exception as error:  # noqa: BLE001 - whatever it is, the authority is to know
        report({"failed": to_wire(error, {"worker_id": spec["worker_id"]})})
        return 1
    return 0


def _take_control_socket() -> socket.socket:
    """Move the control socket off descriptor 0, where a tool that reads standard input would find it."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return control


if __name__ == "__main__":
    sys.exit(main())
