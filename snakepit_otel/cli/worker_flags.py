"""Flags of `snakepit-otel worker`, read without typer, which takes as long to load as a worker to start."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WorkerFlags:
    """Flags of a worker; `worker_command` has their help."""

    adapter: str | None = None
    port: int = 0
    host: str = "localhost"
    elixir_address: str | None = None
    snakepit_run_id: str = ""
    snakepit_instance_name: str = ""
    snakepit_instance_token: str = ""
    health_check: bool = False
    max_workers: int = 1
    thread_safety_check: bool = False
    heartbeat_enabled: bool = True
    heartbeat_interval_ms: int = 2_000
    heartbeat_timeout_ms: int = 10_000
    heartbeat_max_missed: int = 3
    heartbeat_initial_delay_ms: int = 0
    heartbeat_dependent: bool = True
    snakepit_bridge: bool = False


_FIELDS = {f"--{field.name.replace('_', '-')}": field for field in dataclasses.fields(WorkerFlags)}
_SWITCHED_OFF = {
    "--heartbeat-disabled": "heartbeat_enabled",
    "--heartbeat-independent": "heartbeat_dependent",
}


def parse(arguments: Sequence[str]) -> WorkerFlags | None:
    """Return the flags; None for mistakes, and for flags such as --help.

    `worker_command`, which takes the same flags, handles those.
    """
    given: dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, has_value, value = argument.partition("=")
        if argument in _SWITCHED_OFF:
            given[_SWITCHED_OFF[argument]] = False
            continue
        field = _FIELDS.get(flag)
        if field is None:
            return None
        if isinstance(field.default, bool):
            if has_value:
                return None
            given[field.name] = True
            continue
        if not has_value:
            value = next(rest, "-")
            if value.startswith("-"):
                return None
        try:
            given[field.name] = int(value) if isinstance(field.default, int) else value
        except ValueError:
            return None
    flags = WorkerFlags(**given)
    return flags if flags.max_workers >= 1 else None
