"""`snakepit-otel worker` with its help."""

from __future__ import annotations

from typing import Annotated

import typer

from snakepit_otel import compatibility
from snakepit_otel.cli.elixir import SCRIPT
from snakepit_otel.cli.worker import run
from snakepit_otel.cli.worker_flags import WorkerFlags

_HEARTBEAT = "Heartbeats to the authority: "


def _print_script(requested: bool) -> None:
    if requested:
        typer.echo(SCRIPT)
        raise typer.Exit


def worker(
    adapter: Annotated[str | None, typer.Option(help="The adapter class: package.module.Class.")] = WorkerFlags.adapter,
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = WorkerFlags.port,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = WorkerFlags.host,
    elixir_address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the authority.", show_default="SNAKEPIT_GRPC_ADDRESS, SNAKEPIT_ELIXIR_ADDRESS"),
    ] = WorkerFlags.elixir_address,
    snakepit_run_id: Annotated[str, typer.Option(help="The run of this worker, for ps.")] = WorkerFlags.snakepit_run_id,
    snakepit_instance_name: Annotated[
        str, typer.Option(help="The instance of this worker.")
    ] = WorkerFlags.snakepit_instance_name,
    snakepit_instance_token: Annotated[
        str, typer.Option(help="The instance's token, for ps.")
    ] = WorkerFlags.snakepit_instance_token,
    health_check: Annotated[
        bool, typer.Option("--health-check", help="Import the adapter, and exit with 0 or 1.")
    ] = WorkerFlags.health_check,
    max_workers: Annotated[
        int,
        typer.Option(min=1, help="Plain tools that run at a time; above 1, the adapter needs __thread_safe__ = True."),
    ] = WorkerFlags.max_workers,
    thread_safety_check: Annotated[
        bool, typer.Option("--thread-safety-check", help="Does nothing: thread safety is always required.")
    ] = WorkerFlags.thread_safety_check,
    heartbeat_enabled: Annotated[
        bool, typer.Option("--heartbeat-enabled/--heartbeat-disabled", help=_HEARTBEAT + "on or off.")
    ] = WorkerFlags.heartbeat_enabled,
    heartbeat_interval_ms: Annotated[
        int, typer.Option(help=_HEARTBEAT + "milliseconds between two.")
    ] = WorkerFlags.heartbeat_interval_ms,
    heartbeat_timeout_ms: Annotated[
        int, typer.Option(help=_HEARTBEAT + "milliseconds to wait for an answer.")
    ] = WorkerFlags.heartbeat_timeout_ms,
    heartbeat_max_missed: Annotated[
        int, typer.Option(help=_HEARTBEAT + "the number that may be missed.")
    ] = WorkerFlags.heartbeat_max_missed,
    heartbeat_initial_delay_ms: Annotated[
        int, typer.Option(help=_HEARTBEAT + "milliseconds before the first.")
    ] = WorkerFlags.heartbeat_initial_delay_ms,
    heartbeat_dependent: Annotated[
        bool,
        typer.Option("--heartbeat-dependent/--heartbeat-independent", help="Stop when the authority is gone."),
    ] = WorkerFlags.heartbeat_dependent,
    snakepit_bridge: Annotated[
        bool,
        typer.Option(
            compatibility.FLAG,
            help="Run adapters written for Snakepit's own worker, which import snakepit_bridge.",
            show_default=f"{compatibility.VARIABLE}=1",
        ),
    ] = WorkerFlags.snakepit_bridge,
    script_path: Annotated[
        bool,
        typer.Option(
            "--script-path",
            callback=_print_script,
            is_eager=True,
            help="Print the path of the script for Elixir's Snakepit to start, and exit.",
        ),
    ] = False,
) -> None:
    """Serve an adapter to an authority that starts its own workers, such as an Elixir Snakepit.

    Takes upstream's flags and environment: SNAKEPIT_READY_FILE gets the port once the worker serves,
    SNAKEPIT_PROCESS_GROUP=1 makes the worker a session leader, SNAKEPIT_THREAD_SENSITIVE names libraries
    for the main thread; SNAKEPIT_LOG_LEVEL and SNAKEPIT_HEARTBEAT_CONFIG are read. SIGTERM and SIGINT stop
    the worker in good order. Exit codes: 0 stopped, 2 wrong or missing flags, 1 another failure.
    """
    given = dict(locals())
    del given["script_path"]
    run(WorkerFlags(**given))
