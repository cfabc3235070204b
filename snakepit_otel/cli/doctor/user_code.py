"""Checks of adapters and middleware, each imported in a process of its own, as workers import it."""

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
from snakepit_otel.middleware import _check as middleware_child
from snakepit_otel.middleware._settings import MiddlewareSettings
from snakepit_otel.pool.workers.os_process import describe_exit

_MIDDLEWARE_TIMEOUT_S = 30.0


def check_adapter(spec: str, timeout: float) -> Check:
    """Import an adapter in another process, and check that it can be served."""
    topic = f"adapter {spec}"
    found = _examined(topic, adapter_child.__file__, spec, {}, timeout)
    if isinstance(found, Check):
        return found
    if "code" in found:
        return problem(topic, **found)
    tools = found["tools"]
    message = f"{len(tools)} tool{'' if len(tools) == 1 else 's'}: {', '.join(tools)}" if tools else ""
    if found["takes_any"]:
        message = f"{message}, and whatever execute_tool takes" if message else "takes whatever execute_tool takes"
    return ok(topic, f"can be served; {message}", tools=tools)


def check_middleware(settings: MiddlewareSettings) -> list[Check]:
    """Check that the middleware of both sides can be made, each once."""
    checks = []
    for spec in dict.fromkeys([*settings.authority, *settings.worker]):
        topic = f"middleware {spec}"
        options = settings.options.get(spec, {})
        found = _examined(topic, middleware_child.__file__, spec, options, _MIDDLEWARE_TIMEOUT_S)
        sides = {"the authority": settings.authority, "the workers": settings.worker}
        if isinstance(found, Check):
            checks.append(found)
        elif found["error"]:
            checks.append(
                problem(topic, found["error"], "correct the name, the class or its options", "bad_middleware")
            )
        else:
            with_it = " and ".join(side for side, listed in sides.items() if spec in listed)
            checks.append(ok(topic, f"can be made, for {with_it}"))
    return checks


def _examined(topic: str, program: str, spec: str, options: Any, timeout: float) -> dict[str, Any] | Check:
    """Return what a program prints about a class; a problem if it does not end in time, or ends without that."""
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(json.dumps(options, default=str).encode())
        given.seek(0)
        # Files and not pipes: a process that the class's module has started would keep a pipe open.
        child = subprocess.Popen(  # noqa: S603 - this package's program, which imports the user's class
            # By its file, which does not load the command line; -P keeps its folder off the path.
            [sys.executable, "-P", program, spec],
            stdin=given,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            remedy = "look at the top of the module for waits on a network or a lock; workers have pool.startup_timeout"
            return problem(topic, f"its import takes more than {timeout:g} s", remedy, "slow_import")
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
            last_line = errors.read().decode(errors="replace").strip().rpartition("\n")[2][:300]
            return problem(topic, message, "look for exit calls and broken C extensions", "import_died", last_line)
        return found
