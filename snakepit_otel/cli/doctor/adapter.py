"""Whether an adapter can be served, found out in a process of its own, as workers do it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

from snakepit_otel.cli.doctor import adapter_child
from snakepit_otel.cli.doctor.report import Check, ok, problem
from snakepit_otel.pool.workers.os_process import describe_exit

_REMEDIES = {
    "bad_name": "say package.module:Class or path/to/file.py:Class",
    "missing_file": "correct the path; it is looked for from the folder you are in",
    "missing_module": "correct the name, or run this in the folder that has the package (or install it)",
    "missing_package": "pip install it into this environment: {python}",
    "import_failed": "correct that line; python -c 'import …' shows the whole traceback",
    "missing_class": "correct the name after the colon{near}",
    "not_a_class": "name the class itself",
    "no_tools": "mark methods with @tool, or define execute_tool(self, tool_name, args, context)",
    "refused": "correct the tool that it names",
}


def check_adapter(spec: str, timeout: float) -> Check:
    """Import an adapter in another process and say which tools it has, or what keeps it from being served."""
    topic = f"adapter {spec}"
    with TemporaryFile() as output, TemporaryFile() as complaints:
        # Files and not pipes: what the adapter may have started itself would keep a pipe open, and us with it.
        child = subprocess.Popen(  # noqa: S603 - our own program; the user's adapter is what it is to import
            # By its file, so that it need not load the command line; -P, so that its neighbours stay out of the way.
            [sys.executable, "-P", adapter_child.__file__, spec],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            said = f"its import was not done after {timeout:g} s"
            remedy = "look for what it does at the top of the module: it may wait for a network or a lock; or raise "
            return problem(topic, said, f"{remedy}pool.startup_timeout, which is what workers get", "slow_import")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(0)
        complaints.seek(0)
        try:
            found: dict[str, Any] = json.loads(output.read())
        except ValueError:
            said = f"while it was imported, the process {describe_exit(status)}"
            heard = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
            return problem(topic, said, "look for exit calls and broken C extensions", "import_died", heard[:300])
    if "code" in found:
        remedy = _REMEDIES[found["code"]].format(python=sys.executable, near=found.get("near", ""))
        return problem(topic, found["said"], remedy, found["code"], found.get("where", ""))
    tools = found["tools"]
    said = f"{len(tools)} tool{'' if len(tools) == 1 else 's'}: {', '.join(tools)}" if tools else ""
    if found["takes_any"]:
        said = f"{said}, and whatever execute_tool takes" if said else "takes whatever execute_tool takes"
    return ok(topic, f"can be served; {said}", tools=tools)
