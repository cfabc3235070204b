"""Resource detector of a process' role, for processes whose SDK is set up by something else.

It is the entry point `snakepit` of `opentelemetry_resource_detector`, selected by
`OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit`. It reads the command line, since it runs before any program does.

The SDK calls it while it is being imported itself, so nothing can be imported here that needs more of the SDK than
resources, as `telemetry` does; a test compares the names with the registry's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from opentelemetry.sdk.resources import Resource, ResourceDetector

from snakepit_otel._version import VERSION
from snakepit_otel.common.guard import guard

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SNAKEPIT_ROLE = "snakepit.role"
_log = logging.getLogger("snakepit_otel.telemetry")
_WORKER_PROGRAM = "snakepit_otel.pool.workers.worker_main"
_WORKER_FILE = "/snakepit_otel/pool/workers/worker_main.py"
_COMMANDS = ("snakepit-otel", "snakepit_otel")
_UPSTREAMS = ("grpc_server.py", "grpc_server_threaded.py")
_ROLES = {"serve": "authority", "worker": "worker"}
# The interpreter's options with a value, which can end a group of options: `-Im`.
_OPTIONS_WITH_VALUE = "cmWX"


class SnakepitResourceDetector(ResourceDetector):
    """Detects the role, name and version of our processes, and the role and name of upstream's workers.

    It detects nothing for any other process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over it, unless
    the variable lists `otel` before it. `service.instance.id` is the SDK's own.
    """

    def detect(self) -> Resource:
        """See `ResourceDetector`; never raises."""
        with guard("detecting the role of this process", _log, traceback=False):
            return Resource(_attributes(sys.orig_argv))
        return Resource.get_empty()


def _attributes(command_line: Sequence[str]) -> dict[str, str]:
    program, arguments = _program(command_line)
    if program in _UPSTREAMS:
        return {SERVICE_NAME: "snakepit-worker", SNAKEPIT_ROLE: "worker"}
    if program == _WORKER_PROGRAM:
        role = "worker"
    elif program in _COMMANDS:
        role = _ROLES.get(next((word for word in arguments if not word.startswith("-")), ""), "")
    else:
        return {}
    ours = {SERVICE_NAME: f"snakepit-{role}" if role else "snakepit-otel", SERVICE_VERSION: VERSION}
    return {**ours, SNAKEPIT_ROLE: role} if role else ours


def _program(command_line: Sequence[str]) -> tuple[str, Iterator[str]]:
    """Return the module or file name that the interpreter runs, and its arguments."""
    words = iter(command_line[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            return _WORKER_PROGRAM if word.endswith(_WORKER_FILE) else PurePath(word).name, words
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter in _OPTIONS_WITH_VALUE:
                value = word[place:] or next(words, "")
                if letter == "c":
                    return "", words
                if letter == "m":
                    return value, words
                break
    return "", words
