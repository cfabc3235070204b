"""Preparation of worker processes: their configuration and environment, with limits on library threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict

from snakepit_otel.adapters._adapter_loading import located
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.pool.context import PoolContext
from snakepit_otel.pool.settings import PoolSettings, StartMethod
from snakepit_otel.pool.workers.base import Worker
from snakepit_otel.pool.workers.process import ProcessWorker, WorkerSpec
from snakepit_otel.pool.workers.program import this_program

WorkerFactory = Callable[[str, int, Controls | None], Worker]  # of a worker's id, its slot, and what it is to record

_OPENMP = "OMP_NUM_THREADS"
# Libraries that follow OpenMP's variable unless their own is set; PyTorch, scikit-learn and Arrow have only OpenMP's.
_FOLLOW_OPENMP = (
    "OPENBLAS_NUM_THREADS",  # the BLAS of NumPy's and SciPy's wheels
    "MKL_NUM_THREADS",  # that of Anaconda's, and PyTorch's
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",  # pandas' eval
)
_OWN = (
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",  # most libraries that are written in Rust, such as tokenizers
)


def process_workers(pool: str, adapter: str, settings: PoolSettings, context: PoolContext) -> WorkerFactory:
    """Return the factory of a pool's worker processes."""
    # Absolute, as the program may have changed its directory by the time a later worker starts.
    absolute = located(adapter)

    def prepare(worker_id: str, slot: int, controls: Controls | None) -> Worker:
        with suppress(ConfigurationError):  # the worker's start will raise it
            context.ensure()
        environment = settings.environment_of(slot, pool)
        spec = WorkerSpec(
            worker_id=worker_id,
            pool=pool,
            slot=slot,
            environment=environment,
            adapter=absolute,
            listen=f"unix:{context.directory}/{worker_id}.sock",
            authority=context.authority,
            profile=settings.profile.value,
            threads=settings.concurrency,
            max_message_bytes=settings.max_message_bytes,
            shutdown_grace=settings.shutdown_grace / 1000,
            stop_hook_timeout=settings.stop_hook_timeout / 1000,
            parent=os.getpid(),
            token=context.fencing_tokens.issue(worker_id),
            program=this_program(absolute, environment.get("PYTHONPATH", "")),
            fd_server=str(context.fd_server.path) if context.fd_server is not None else None,
            zero_copy=asdict(context.buffer_store.settings),
            strict=context.buffer_store.strict,
            middleware=context.middleware,
            local_transport=context.local_transport,
        )
        limits = thread_limits(settings.library_threads, {**os.environ, **environment})
        environ = {**limits, **environment}
        fork_server = context.fork_server if settings.start_method is StartMethod.FORKSERVER else None
        return ProcessWorker(spec, context.directory.name, environ, context, controls, fork_server)

    return prepare


def thread_limits(threads: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables, of those not in `environ`, that have numeric libraries use so many threads; none for 0."""
    if not threads:
        return {}
    names = _OWN if _OPENMP in environ else (_OPENMP, *_FOLLOW_OPENMP, *_OWN)
    return {name: str(threads) for name in names if name not in environ}
