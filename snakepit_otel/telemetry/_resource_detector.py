"""A resource detector for processes whose SDK others set up: which side of the bridge they are on.

It is the entry point `snakepit` of `opentelemetry_resource_detector`, to be asked for by
`OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit`. It goes by the command line, since it is asked before any program runs.

The SDK asks while it is being imported itself, so nothing may be imported here that needs more of it than resources,
as `telemetry` does; a test holds the names to the registry's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from opentelemetry.sdk.resources import Resource, ResourceDetector

from snakepit_otel._version import VERSION
from snakepit_otel.common.printable import printable_error

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SNAKEPIT_ROLE = "snakepit.role"
_log = logging.getLogger("snakepit_otel.telemetry")
_WORKER_PROGRAM = "snakepit_otel.pool.workers.worker_main"
_WORKER_FILE = "/snakepit_otel/pool/workers/worker_main.py"
_COMMANDS = ("snakepit-otel", "snakepit_otel")
_UPSTREAMS = ("grpc_server.py", "grpc_server_threaded.py")
_ROLES = {"serve": "authority", "worker": "worker"}
_TAKE_A_VALUE = "cmWX"
"""The interpreter's options that do, and may stand at the end of several: `-Im`."""


class SnakepitResourceDetector(ResourceDetector):
    """Says the role, the name and the version of a process of ours, the role and the name of upstream's workers.

    Of any other process it says nothing. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over it, where the
    variable does not name `otel` before it. `service.instance.id` is the SDK's own.
    """

    def detect(self) -> Resource:
        """See `ResourceDetector`; never raises."""
        try:
            return Resource(_said_of(sys.orig_argv))
        except Exception as error:  # noqa: BLE001 - without it the SDK is set up all the same
            _log.warning("it is not known which side of the bridge this process is on: %s", printable_error(error))
            return Resource.get_empty()


def _said_of(command_line: Sequence[str]) -> dict[str, str]:
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
    """Return what the interpreter was told to run, a module or a file's name, and what that was told."""
    words = iter(command_line[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            return _WORKER_PROGRAM if word.endswith(_WORKER_FILE) else PurePath(word).name, words
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter in _TAKE_A_VALUE:
                value = word[place:] or next(words, "")
                if letter == "c":
                    return "", words
                if letter == "m":
                    return value, words
                break
    return "", words
