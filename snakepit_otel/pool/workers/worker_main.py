"""The program of a worker process that the pool starts: `python -P worker_main.py RUN_ID WORKER_ID`.

It is started by its file, and imports nothing but the standard library before it has the authority's import path.
With a template's name in place of a worker's id, it forks workers; see `fork_template`.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from typing import Any

_ARGUMENTS = 3  # with the program's own name


def main() -> int:
    """Serve until stopped; the control socket is standard input. The arguments are for the process list."""
    if len(sys.argv) != _ARGUMENTS:
        sys.stderr.write("worker_main is started by a pool, as: worker_main RUN_ID WORKER_ID\n")
        return 2
    control = _take_control_socket()
    spec = _read_line(control)
    is_template = spec.get("fork_server", False)
    # Without a program, the adapter is imported from the present path.
    import_path, main_module = sys.path[:], None
    if is_template:
        sys.path[:] = spec["package_path"]
    elif spec.get("program"):
        sys.path[:], import_path, main_module = spec["program"]

    from snakepit_otel.pool.workers.os_process import die_with_parent
    from snakepit_otel.system import standard_streams

    die_with_parent(spec["parent"])
    if not is_template:
        standard_streams.make_output_non_blocking()
    # Little of what is loaded from here on becomes garbage.
    gc.disable()
    # Imported late, so that the parent's death is noticed from the first moment.
    from snakepit_otel.pool.workers import fork_template, worker_process

    if is_template:
        forked = fork_template.serve(control, spec["local_transport"])
        if forked is None:
            return 0
        control = forked.control
        spec = _read_line(control)
        die_with_parent(spec["parent"])
        fork_template.set_variables(spec["variables"], forked.ledger)
        _, import_path, main_module = spec["program"]
        standard_streams.make_output_non_blocking()
    # Modules of this package are excluded from collection; the adapter's are collected like any program's.
    gc.freeze()
    gc.enable()
    # Only now: later entries of the program's import path are for the adapter.
    sys.path[:] = import_path
    return worker_process.run(control, spec, main_module)


def _read_line(control: socket.socket) -> dict[str, Any]:
    """Return what the authority sends at the beginning."""
    with control.makefile("rb") as lines:
        return dict(json.loads(lines.readline()))


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
