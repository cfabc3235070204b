"""`snakepit-otel worker`: a worker for an authority that starts it itself, by upstream's flags.

It imports what it uses, where it uses it: Elixir starts many of these at a time.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
from snakepit_otel.compatibility.environment import is_set, log_as_told, logs_information
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


@dataclass(frozen=True)
class _Work:
    """The settings of one worker."""

    adapter: str
    address: str
    authority: str
    worker_id: str
    threads: int
    heartbeat: HeartbeatSettings
    bridge: bool


def run(flags: WorkerFlags) -> None:
    """Serve as the flags say, or check the adapter. Raises `SystemExit` with the exit code if that cannot be."""
    log_as_told()
    bridge = flags.snakepit_bridge or compatibility.asked_for()
    try:
        if bridge:
            compatibility.install()
        if Path.cwd() != SCRIPT.parent:
            # The adapter is looked for where the user is, as serve has it.
            sys.path.insert(0, str(Path.cwd()))
        if flags.health_check:
            gc.enable()
            _check(flags.adapter, _loader(bridge, flags.max_workers))
            return
        if flags.adapter is None:
            _misuse("--adapter is missing: say which class to serve, --adapter package.module.Class")
        authority = flags.elixir_address or environment.value("SNAKEPIT_GRPC_ADDRESS")
        authority = authority or environment.value("SNAKEPIT_ELIXIR_ADDRESS")
        if not authority:
            _misuse("say where the authority is: --elixir-address HOST:PORT, or SNAKEPIT_GRPC_ADDRESS")
        # Only now, since all of the bridge comes with it, which a health check does without.
        from snakepit_otel.bridge.worker.heartbeat import HeartbeatSettings
        from snakepit_otel.rpc.addresses import split

        if not authority.startswith("unix:"):
            split(authority)
        _lead_a_session()
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
        # The name is that of Elixir's whole instance, and all of its workers have it.
        worker_id = f"{flags.snakepit_instance_name or 'python'}-{os.getpid()}"
        address = f"{flags.host}:{flags.port}"
        work = _Work(flags.adapter, address, authority, worker_id, flags.max_workers, heartbeat, bridge)
        event_loop.run(_serve(work))
    except SnakepitError as error:
        _fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _serve(work: _Work) -> None:
    import asyncio

    from snakepit_otel.bridge.worker.heartbeat import Heartbeats
    from snakepit_otel.bridge.worker.server import WorkerServer, freeze_gc

    beats: Heartbeats
    # What is ours is never looked at again; the adapter is collected as it is loaded, like any program.
    gc.freeze()
    gc.enable()

    def on_session(session_id: str) -> None:
        beats.start(session_id)

    # What is made outside of a request here is a worker's, too.
    pending_scope.owner = Owner.PYTHON
    server = WorkerServer(
        adapter=work.adapter,
        listen=work.address,
        authority=work.authority,
        worker_id=work.worker_id,
        threads=work.threads,
        register_tools=True,
        on_session=on_session,
        whole_process=True,
        load=_loader(work.bridge, work.threads),
        context=compatibility.BridgeContext if work.bridge else SessionContext,
        middleware=_middleware(),
    )
    await server.start()
    if work.bridge:
        compatibility.connect(server.events)
    freeze_gc()
    beats = Heartbeats(server.authority, work.heartbeat, server.request_stop)
    ready = asyncio.ensure_future(_be_ready(server))
    ready.add_done_callback(lambda _: _stop_unless_ready(server, ready))

    async def wind_up() -> None:
        # Told to stop while it still waits for its authority, it waits no longer.
        ready.cancel()
        await asyncio.wait([ready])
        await beats.stop()

    await server.run_until_stopped(before_closing=wind_up)
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


async def _be_ready(server: WorkerServer) -> None:
    from snakepit_otel.rpc.addresses import split

    await server.authority.wait_until_reachable()
    _announce(split(server.address)[1])


def _loader(bridge: bool, threads: int) -> Callable[[str], type]:
    """Return what loads the adapter: one that is thread-safe, if tools are to run at the same time."""

    def load(spec: str) -> type:
        found = compatibility.load(spec) if bridge else compatibility.load_or_advise(spec)
        if threads > 1:
            require_thread_safe(found, "--max-workers 1")
        return found

    return load


def _check(adapter: str | None, load: Callable[[str], type]) -> None:
    """Say whether the adapter can be served, or the worker started, where none is named."""
    if adapter is None:
        import snakepit_otel.bridge.worker.server  # noqa: F401 - all that a worker imports

        _report("the worker can be started; name an adapter to have it checked, too")
        return
    AdapterHost(load(adapter), ToolThreads())
    compatibility.require_room_for_ours(adapter)
    # Elixir checks the worker's health at each start, prints what it writes, and sets the level for both.
    if logs_information():
        _report(f"{adapter} can be served")


def _report(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


def _misuse(what: str) -> NoReturn:
    import typer

    from snakepit_otel.cli.output import misuse

    with suppress(typer.Exit):
        misuse(what)
    raise SystemExit(_USAGE)


def _fail(error: SnakepitError) -> NoReturn:
    import typer

    from snakepit_otel.cli.output import fail

    with suppress(typer.Exit):
        fail(error)
    # Upstream's one code for everything that keeps a worker from serving.
    raise SystemExit(1) from None


def _lead_a_session() -> None:
    if is_set("SNAKEPIT_PROCESS_GROUP"):
        with suppress(PermissionError):  # already the leader of one
            os.setsid()


def _announce(port: int) -> None:
    """Write the port to the file the authority watches, in one step, so that it never reads half of it."""
    named = environment.value("SNAKEPIT_READY_FILE")
    if not named:
        return
    try:
        replace_file(Path(named), str(port))
    except OSError as error:
        raise ConfigurationError(f"SNAKEPIT_READY_FILE, {named}, cannot be written: {error.strerror}") from None
