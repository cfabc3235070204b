"""Check of an adapter, in a process of its own, as workers import it."""

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
    "bad_name": "write package.module:Class or path/to/file.py:Class",
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
    """Import an adapter in another process, and check that it can be served."""
    topic = f"adapter {spec}"
    with TemporaryFile() as output, TemporaryFile() as errors:
        # Files and not pipes: a process that the adapter has started would keep a pipe open.
        child = subprocess.Popen(  # noqa: S603 - this package's program, which imports the user's adapter
            # By its file, which does not load the command line; -P keeps its folder off the path.
            [sys.executable, "-P", adapter_child.__file__, spec],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            message = f"its import takes more than {timeout:g} s"
            remedy = "look at the top of the module for waits on a network or a lock; or raise "
            return problem(topic, message, f"{remedy}pool.startup_timeout, the limit of workers", "slow_import")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(0)
        errors.seek(0)
        try:
            found: dict[str, Any] = json.loads(output.read())
        except ValueError:
            message = f"while it was imported, the process {describe_exit(status)}"
            last_line = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            return problem(
                topic, message, "look for exit calls and broken C extensions", "import_died", last_line[:300]
            )
    if "code" in found:
        remedy = _REMEDIES[found["code"]].format(python=sys.executable, near=found.get("near", ""))
        return problem(topic, found["message"], remedy, found["code"], found.get("where", ""))
    tools = found["tools"]
    message = f"{len(tools)} tool{'' if len(tools) == 1 else 's'}: {', '.join(tools)}" if tools else ""
    if found["takes_any"]:
        message = f"{message}, and whatever execute_tool takes" if message else "takes whatever execute_tool takes"
    return ok(topic, f"can be served; {message}", tools=tools)
