"""`snakepit-otel worker` as a command of the command line, with its help."""

from __future__ import annotations

from typing import Annotated

import typer

from snakepit_otel import compatibility
from snakepit_otel.cli.elixir import SCRIPT
from snakepit_otel.cli.worker import run
from snakepit_otel.cli.worker_flags import WorkerFlags

_HEARTBEAT = "Heartbeats to the authority: "


def _print_script(asked: bool) -> None:
    if asked:
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
    snakepit_run_id: Annotated[
        str, typer.Option(help="The run this worker belongs to, to be seen in ps.")
    ] = WorkerFlags.snakepit_run_id,
    snakepit_instance_name: Annotated[
        str, typer.Option(help="The instance this worker belongs to.")
    ] = WorkerFlags.snakepit_instance_name,
    snakepit_instance_token: Annotated[
        str, typer.Option(help="The instance's token, to be seen in ps.")
    ] = WorkerFlags.snakepit_instance_token,
    health_check: Annotated[
        bool, typer.Option("--health-check", help="Import the adapter, and exit with 0 or 1.")
    ] = WorkerFlags.health_check,
    max_workers: Annotated[
        int,
        typer.Option(min=1, help="Plain tools that run at a time; above 1, of adapters with __thread_safe__ = True."),
    ] = WorkerFlags.max_workers,
    thread_safety_check: Annotated[
        bool, typer.Option("--thread-safety-check", help="Does nothing: thread safety is always asked for.")
    ] = WorkerFlags.thread_safety_check,
    heartbeat_enabled: Annotated[
        bool, typer.Option("--heartbeat-enabled/--heartbeat-disabled", help=_HEARTBEAT + "whether.")
    ] = WorkerFlags.heartbeat_enabled,
    heartbeat_interval_ms: Annotated[
        int, typer.Option(help=_HEARTBEAT + "how often.")
    ] = WorkerFlags.heartbeat_interval_ms,
    heartbeat_timeout_ms: Annotated[
        int, typer.Option(help=_HEARTBEAT + "how long to wait for one.")
    ] = WorkerFlags.heartbeat_timeout_ms,
    heartbeat_max_missed: Annotated[
        int, typer.Option(help=_HEARTBEAT + "how many may be missed.")
    ] = WorkerFlags.heartbeat_max_missed,
    heartbeat_initial_delay_ms: Annotated[
        int, typer.Option(help=_HEARTBEAT + "when to begin.")
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
    script_path: Annotated[  # noqa: ARG001 - answered by its callback
        bool,
        typer.Option(
            "--script-path",
            callback=_print_script,
            is_eager=True,
            help="Print the path of the script that Elixir's Snakepit is to start, and exit.",
        ),
    ] = False,
) -> None:
    """Serve an adapter to an authority that starts its own workers, such as an Elixir Snakepit.

    Takes upstream's flags and environment: SNAKEPIT_READY_FILE gets the port once the worker serves,
    SNAKEPIT_PROCESS_GROUP=1 makes it leader of a session of its own, SNAKEPIT_THREAD_SENSITIVE names what is
    for the main thread, SNAKEPIT_LOG_LEVEL and SNAKEPIT_HEARTBEAT_CONFIG are honoured. SIGTERM and SIGINT
    stop it in good order, with exit code 0. It is 2 for flags that are wrong or missing, and else 1.
    """
    run(
        WorkerFlags(
            adapter=adapter,
            port=port,
            host=host,
            elixir_address=elixir_address,
            snakepit_run_id=snakepit_run_id,
            snakepit_instance_name=snakepit_instance_name,
            snakepit_instance_token=snakepit_instance_token,
            health_check=health_check,
            max_workers=max_workers,
            thread_safety_check=thread_safety_check,
            heartbeat_enabled=heartbeat_enabled,
            heartbeat_interval_ms=heartbeat_interval_ms,
            heartbeat_timeout_ms=heartbeat_timeout_ms,
            heartbeat_max_missed=heartbeat_max_missed,
            heartbeat_initial_delay_ms=heartbeat_initial_delay_ms,
            heartbeat_dependent=heartbeat_dependent,
            snakepit_bridge=snakepit_bridge,
        )
    )
