"""What a worker of a pool is told at its start, and in what environment."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict

from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.pool.context import PoolContext
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.library_threads import limits
from snakepit_otel.pool.workers.process import Worker, WorkerSpec
from snakepit_otel.pool.workers.program import this_program


def prepare(
    pool: str, adapter: str, settings: PoolSettings, context: PoolContext, incarnation: str, controls: Controls | None
) -> Worker:
    """Return a worker, still to be started; `incarnation` is its slot and generation."""
    with suppress(ConfigurationError):  # it will say why it does not start
        context.ensure()
    worker_id = f"{pool}-{incarnation}"
    spec = WorkerSpec(
        worker_id=worker_id,
        pool=pool,
        adapter=adapter,
        listen=f"unix:{context.directory}/{worker_id}.sock",
        authority=context.authority,
        profile=settings.profile.value,
        threads=settings.concurrency,
        max_message_bytes=settings.max_message_bytes,
        shutdown_grace=settings.shutdown_grace / 1000,
        parent=os.getpid(),
        token=context.fencing_tokens.issue(worker_id),
        program=this_program(adapter, settings.environment.get("PYTHONPATH", "")),
        fd_server=str(context.fd_server.path) if context.fd_server is not None else None,
        zero_copy=asdict(context.buffer_store.settings),
        strict=context.buffer_store.strict,
        middleware=context.middleware,
    )
    ours = {**os.environ, **settings.environment}
    environ = {**limits(settings.library_threads, ours), **settings.environment}
    return Worker(spec, context.directory.name, environ, context.pid_file.add, controls)
