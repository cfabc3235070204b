"""`snakepit-otel worker`: run a worker that an Elixir Snakepit starts by upstream's flags.

Imports are where they are needed: Elixir starts many workers at a time.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from snakepit_otel import compatibility
from snakepit_otel.adapters import SessionContext
from snakepit_otel.adapters._adapter_loading import require_thread_safe
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.cli.elixir import SCRIPT
from snakepit_otel.cli.worker_flags import WorkerFlags
from snakepit_otel.common.printable import printable
from snakepit_otel.compatibility.environment import configure_logging, is_set, logs_information
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.system import event_loop
from snakepit_otel.system.atomic_files import replace_file
from snakepit_otel.telemetry import environment
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._descriptor import Owner

if TYPE_CHECKING:
    import asyncio

    from snakepit_otel.bridge.worker.heartbeat import Heartbeats, HeartbeatSettings
    from snakepit_otel.bridge.worker.server import WorkerServer
    from snakepit_otel.middleware._loading import Spec

_USAGE = 2


def run(flags: WorkerFlags) -> None:
    """Serve, or check the adapter, by the flags. Raises `SystemExit` with the exit code for a failure."""
    configure_logging()
    bridge = flags.snakepit_bridge or compatibility.is_enabled()
    try:
        if bridge:
            compatibility.install()
        if Path.cwd() != SCRIPT.parent:
            # The adapter is found in the current folder, too, as by serve.
            sys.path.insert(0, str(Path.cwd()))
        if flags.health_check:
            gc.enable()
            _check(flags.adapter, _loader(bridge, flags.max_workers))
            return
        if flags.adapter is None:
            _usage_error("--adapter is missing: name the class to serve, --adapter package.module.Class")
        authority = flags.elixir_address or environment.value("SNAKEPIT_GRPC_ADDRESS")
        authority = authority or environment.value("SNAKEPIT_ELIXIR_ADDRESS")
        if not authority:
            _usage_error("no address of an authority: --elixir-address HOST:PORT, or SNAKEPIT_GRPC_ADDRESS")
        # Imported late, as a health check does without the bridge.
        from snakepit_otel.bridge.worker.heartbeat import HeartbeatSettings
        from snakepit_otel.rpc.addresses import split

        if not authority.startswith("unix:"):
            split(authority)
        _start_session()
        heartbeat = HeartbeatSettings.read(
            {
                "enabled": flags.heartbeat_enabled,
                "interval_ms": flags.heartbeat_interval_ms,
                "timeout_ms": flags.heartbeat_timeout_ms,
                "max_missed_heartbeats": flags.heartbeat_max_missed,
                "initial_delay_ms": flags.heartbeat_initial_delay_ms,
                "dependent": flags.heartbeat_dependent,
            },
            environment.value("SNAKEPIT_HEARTBEAT_CONFIG"),
        )
        event_loop.run(_serve(flags.adapter, authority, flags, heartbeat, bridge))
    except SnakepitError as error:
        _exit(1, error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _serve(adapter: str, authority: str, flags: WorkerFlags, heartbeat: HeartbeatSettings, bridge: bool) -> None:
    import asyncio

    from snakepit_otel.bridge.worker.heartbeat import Heartbeats
    from snakepit_otel.bridge.worker.server import WorkerServer, freeze_gc

    heartbeats: Heartbeats
    # The collector skips the library's own objects; those of the adapter's import are collected.
    gc.freeze()
    gc.enable()

    def on_session(session_id: str) -> None:
        heartbeats.start(session_id)

    # References that are made outside of requests are the worker's.
    pending_scope.owner = Owner.PYTHON
    server = WorkerServer(
        adapter=adapter,
        listen=f"{flags.host}:{flags.port}",
        authority_address=authority,
        # All workers of one Elixir instance have the same name.
        worker_id=f"{flags.snakepit_instance_name or 'python'}-{os.getpid()}",
        threads=flags.max_workers,
        register_tools=True,
        on_session=on_session,
        whole_process=True,
        load=_loader(bridge, flags.max_workers),
        context=compatibility.BridgeContext if bridge else SessionContext,
        middleware=_middleware(),
    )
    await server.start()
    if bridge:
        compatibility.connect(server.events)
    freeze_gc()
    heartbeats = Heartbeats(server.authority, heartbeat, server.request_stop)
    ready = asyncio.ensure_future(_await_ready(server))
    ready.add_done_callback(lambda _: _stop_unless_ready(server, ready))

    async def stop_heartbeats() -> None:
        # A worker that stops does not wait for its authority.
        ready.cancel()
        await asyncio.wait([ready])
        await heartbeats.stop()

    await server.run_until_stopped(before_closing=stop_heartbeats)
    with suppress(asyncio.CancelledError):
        await ready


def _middleware() -> tuple[Spec, ...]:
    """Return the middleware of the settings, which are read only where variables name it or a file."""
    if not any(name.startswith(("SNAKEPIT_OTEL_MIDDLEWARE", "SNAKEPIT_OTEL_CONFIG")) for name in os.environ):
        return ()
    from snakepit_otel.middleware._settings import worker_specs
    from snakepit_otel.settings import load_settings

    return worker_specs(load_settings().middleware)


def _stop_unless_ready(server: WorkerServer, ready: asyncio.Future[None]) -> None:
    if ready.cancelled() or ready.exception() is not None:
        server.request_stop()


async def _await_ready(server: WorkerServer) -> None:
    from snakepit_otel.rpc.addresses import split

    await server.authority.wait_until_reachable()
    _write_ready_file(split(server.address)[1])


def _loader(bridge: bool, threads: int) -> Callable[[str], type]:
    """Return the adapter's loader, which requires thread safety if tools run at the same time."""

    def load(spec: str) -> type:
        found = compatibility.load(spec) if bridge else compatibility.load_or_suggest_flag(spec)
        if threads > 1:
            require_thread_safe(found, "--max-workers 1")
        return found

    return load


def _check(adapter: str | None, load: Callable[[str], type]) -> None:
    """Check that the adapter can be served, or, without one, that a worker can be started."""
    if adapter is None:
        import snakepit_otel.bridge.worker.server  # noqa: F401 - loads what a worker needs

        _report("the worker can be started; --adapter has an adapter checked, too")
        return
    AdapterHost(load(adapter), ToolThreads())
    compatibility.require_own_messages(adapter)
    # Elixir checks the health at each start and prints the output; one level is for both.
    if logs_information():
        _report(f"{adapter} can be served")


def _report(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


def _usage_error(message: str) -> NoReturn:
    _exit(_USAGE, ConfigurationError(message))


def _exit(code: int, error: SnakepitError) -> NoReturn:
    """Print an error, and exit with upstream's code in place of the command line's."""
    import typer

    from snakepit_otel.cli.output import fail

    with suppress(typer.Exit):
        fail(error)
    raise SystemExit(code)


def _start_session() -> None:
    if is_set("SNAKEPIT_PROCESS_GROUP"):
        with suppress(PermissionError):  # already a leader
            os.setsid()


def _write_ready_file(port: int) -> None:
    """Write the port to the file that the authority watches, in one step."""
    named = environment.value("SNAKEPIT_READY_FILE")
    if not named:
        return
    try:
        replace_file(Path(named), str(port))
    except OSError as error:
        raise ConfigurationError(f"SNAKEPIT_READY_FILE, {named}, cannot be written: {error.strerror}") from None
