"""Workload of the demo: customers, visitors, a leak, and a worker that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from opentelemetry import trace

from snakepit_otel import zero_copy
from snakepit_otel.app import Snakepit
from snakepit_otel.cli.demo.adapter import split_digits
from snakepit_otel.errors import WorkerExited
from snakepit_otel.pool.workers.base import Worker, WorkerState

CUSTOMERS = 12
REQUESTS = 420
VISITORS = 10
VISITOR_TTL = 1.0
MAX_SESSIONS = 50
BATCH = 8_192
BATCH_SPAN = "read a batch"
_AT_A_TIME = 8
_NOISE = 1.5


@dataclass
class Findings:
    """Results of serving the customers."""

    answered: int = 0
    right: int = 0
    lost: list[WorkerExited] = field(default_factory=list)
    seconds: float = 0.0
    first_error_after: float = 0.0
    replaced_after: float = 0.0
    killed: str = ""
    replacement: str = ""


@dataclass(frozen=True)
class Batch:
    """Result of many images read in one request; `given`, `returned` and `described` are sizes in bytes."""

    given: int  # the images
    returned: int  # the scores
    described: int  # the description sent in place of the images
    seconds: float
    right: float


async def warm_up(pit: Snakepit) -> str:
    """Have every worker train its model, by one request each; return the model's description."""
    answers = await asyncio.gather(*(pit.execute("about") for _ in pit.pool.workers))
    return str(answers[0])


async def receive_visitors(pit: Snakepit) -> None:
    """Open sessions that nobody comes back to; their TTL is short."""
    _, _, images, _ = await asyncio.to_thread(split_digits)
    for number in range(VISITORS):
        await pit.sessions.create(f"visitor-{number:02}", ttl=VISITOR_TTL, owner="visitors")
        await pit.execute("read_digit", {"pixels": images[number].tolist()}, session_id=f"visitor-{number:02}")


async def serve_customers(pit: Snakepit, advance: Callable[[], Any]) -> Findings:
    """Have digits read for every customer, several requests at a time; kill a worker a third of the way."""
    _, _, images, labels = await asyncio.to_thread(split_digits)
    for number in range(CUSTOMERS):
        await pit.sessions.create(f"customer-{number:02}", owner="customers")
    jobs = iter(range(REQUESTS))
    kill_at = REQUESTS // 3
    found = Findings()
    killed_at = 0.0
    replacing: asyncio.Task[None] | None = None

    async def replaced(victim: Worker) -> None:
        while not (
            ready := [w for w in pit.pool.workers if w.state is WorkerState.READY and _slot(w) == _slot(victim)]
        ):
            await asyncio.sleep(0.01)
        found.replaced_after = time.perf_counter() - killed_at
        found.replacement = f"{ready[0].id} (pid {ready[0].pid})"

    async def client() -> None:
        nonlocal killed_at, replacing
        for job in jobs:
            if job == kill_at:
                victim = max(pit.pool.workers, key=lambda worker: worker.active)
                found.killed = f"{victim.id} (pid {victim.pid})"
                killed_at = time.perf_counter()
                os.kill(victim.pid, signal.SIGKILL)
                await victim.wait()
                replacing = asyncio.ensure_future(replaced(victim))
            index = job % len(labels)
            try:
                answer = await pit.execute(
                    "read_digit",
                    {"pixels": images[index].tolist()},
                    session_id=f"customer-{job % CUSTOMERS:02}",
                )
            except WorkerExited as error:
                found.first_error_after = found.first_error_after or time.perf_counter() - killed_at
                found.lost.append(error)
            else:
                found.answered += 1
                found.right += answer["digit"] == labels[index]
            advance()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_AT_A_TIME)))
    found.seconds = time.perf_counter() - started
    if replacing is not None:
        await replacing
    return found


@dataclass
class Restart:
    """Results of requests while all workers were replaced, and one of the new ones was killed."""

    replaced: int = 0
    answered: int = 0
    retried: int = 0


async def replace_workers(pit: Snakepit) -> Restart:
    """Replace all workers under idempotent requests, and kill one of them; every request is to be answered."""
    _, _, images, _ = await asyncio.to_thread(split_digits)
    found = Restart()
    retried_before = pit.pool.requests.retried
    over = False

    async def client(number: int) -> None:
        while not over:
            pixels = {"pixels": images[number].tolist()}
            await pit.execute("read_digit", pixels, session_id=f"customer-{number:02}", idempotent=True)
            found.answered += 1

    clients = [asyncio.ensure_future(client(number)) for number in range(_AT_A_TIME)]
    report = await pit.restart_workers()
    found.replaced = len(report.replacements) - len(report.failures)
    victim = max(pit.pool.workers, key=lambda worker: worker.active)
    os.kill(victim.pid, signal.SIGKILL)
    await victim.wait()
    over = True
    await asyncio.gather(*clients)
    found.retried = pit.pool.requests.retried - retried_before
    return found


async def read_batch(pit: Snakepit) -> Batch:
    """Have many images read in one request, with noise on them; neither they nor their scores cross gRPC."""
    import numpy as np

    _, _, unseen, labels = await asyncio.to_thread(split_digits)
    generator = np.random.default_rng(7)
    chosen = generator.integers(len(labels), size=BATCH)
    # Memory that the worker will read, so that what is computed into it is written once.
    images = zero_copy.empty((BATCH, unseen.shape[1]), "float64")
    np.add(unseen[chosen], generator.normal(0, _NOISE, images.shape), out=images)
    # A span of the caller's own makes one trace of the reference and the request that it is for.
    with trace.get_tracer("snakepit_otel.demo").start_as_current_span(BATCH_SPAN):
        started = time.perf_counter()
        ref = zero_copy.from_numpy(images)
        scores = await pit.execute("score_digits", {"images": ref})
        seconds = time.perf_counter() - started
    return Batch(
        ref.bytes,
        scores.nbytes,
        len(orjson.dumps(ref.description.to_json())),
        seconds,
        float((scores.argmax(axis=1) == labels[chosen]).mean()),
    )


async def leak_sessions(pit: Snakepit) -> None:
    """The leak: a session for each tab, and nobody to close it."""
    for number in range(MAX_SESSIONS - CUSTOMERS + 1):
        await pit.sessions.create(f"tab-{number:02}", owner="web")


async def wait_for_pruning(pit: Snakepit) -> None:
    """Wait until the periodic sweep has removed the visitors."""
    while pit.sessions.stats_snapshot().pruned_ttl < VISITORS:
        await asyncio.sleep(0.05)


def _slot(worker: Worker) -> str:
    return worker.id.partition(".")[0]
