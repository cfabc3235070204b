"""Command `snakepit-otel doctor`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from snakepit_otel.cli.doctor.environment import check_environment, check_providers
from snakepit_otel.cli.doctor.packages import check_packages
from snakepit_otel.cli.doctor.report import Section, Status, as_json, count, show
from snakepit_otel.cli.doctor.session_store import check_session_store
from snakepit_otel.cli.doctor.settings import check_listen, check_settings, check_shared_memory, check_sockets
from snakepit_otel.cli.doctor.telemetry import check_telemetry
from snakepit_otel.cli.doctor.user_code import check_adapter, check_middleware
from snakepit_otel.cli.output import console, print_json
from snakepit_otel.settings import Settings

EXIT_PROBLEM = 1


def doctor(
    adapter: Annotated[
        str | None, typer.Option(help="Check that this adapter can be served.", show_default="that of the settings")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Check that this HOST:PORT is free.", show_default="that of the settings")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings, as for serve.")] = None,
    telemetry: Annotated[
        bool,
        typer.Option("--telemetry", help="Send a span, a metric and a log record, and check that they are accepted."),
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.2, max=600, help="Seconds that --telemetry may take in all.")] = 5.0,
    as_json_document: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Check this installation, and name a remedy for each fault.

    Checks the installed packages, the settings, the sockets, the session store, the adapter and the OTEL_* and
    SNAKEPIT_* variables. With --telemetry it checks those variables, and whether telemetry arrives where they point.
    Secrets are not printed. Exit codes: 0 no problem, 1 a problem.
    """
    environment = Section("Environment", [*check_environment(os.environ), *check_providers()])
    if telemetry:
        sections = [environment, Section("Telemetry", check_telemetry(timeout))]
    else:
        sections = [*_installation(adapter, listen, config), environment]
    if as_json_document:
        print_json(as_json(sections))
    else:
        show(console, sections)
    raise typer.Exit(EXIT_PROBLEM if count(sections, Status.PROBLEM) else 0)


def _installation(adapter: str | None, listen: str | None, config: Path | None) -> list[Section]:
    given = {"adapter": adapter} if adapter else {}
    checks, settings = check_settings(config, given)
    sections = [Section("Packages", check_packages()), Section("Settings", checks)]
    if settings is not None:
        server = settings.server
        machine = [*check_sockets(settings), check_shared_memory(settings.zero_copy)]
        if address := listen or server.listen:
            certified = server.tls is not None and server.tls.client_ca is not None
            machine.append(check_listen(address, certified=certified, insecure=server.insecure))
        sections.append(Section("Machine", machine))
        sections.append(Section("Sessions", check_session_store(settings.session_store)))
        if adapters := _adapters(settings):
            checks = [check_adapter(spec, seconds) for spec, seconds in adapters.items()]
            sections.append(Section("Adapter" if len(checks) == 1 else "Adapters", checks))
        if checks := check_middleware(settings.middleware):
            sections.append(Section("Middleware", checks))
    return sections


def _adapters(settings: Settings) -> dict[str, float]:
    """Return the adapters of all pools, each with the shortest startup timeout of its workers in seconds."""
    found: dict[str, float] = {}
    pools = settings.pools.values()
    for spec, pool in [(settings.adapter, settings.pool), *((pool.adapter, pool) for pool in pools)]:
        if spec:
            found[spec] = min(found.get(spec, math.inf), pool.startup_timeout / 1000)
    return found
