"""Celery with two worker processes, and Redis as broker, as result backend and for the sessions' counters.

Each process may fetch as many tasks ahead as it has calls in flight here, which is faster than the four of Celery's
default. Gossip, mingling, heartbeats and events are off.
"""

from __future__ import annotations

import asyncio
import os

import redis
from celery import Celery

from benchmarks.peer_rows.turns import HELLO, IN_FLIGHT, WORKERS, Counts, is_echo, pipelined, take_turns
from benchmarks.peer_rows.worker_processes import START, workers

URL = os.environ["PEERS_REDIS"]
app = Celery("peers", broker=f"{URL}/0", backend=f"{URL}/1", broker_connection_retry_on_startup=True)
app.conf.worker_prefetch_multiplier = IN_FLIGHT // WORKERS
sessions = redis.Redis.from_url(f"{URL}/2")


@app.task(name="echo")
def echo(value: object) -> object:
    return value


@app.task(name="count")
def count(session: int) -> int:
    return sessions.incr(f"session:{session}")


def main() -> None:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    with workers("celery", "-A", "benchmarks.peer_rows.celery_tasks", "worker", "-c", str(WORKERS), *quiet):
        echo.delay(HELLO).get(timeout=START)
        bursts = {
            "task echo": pipelined(lambda _place: echo.delay(HELLO), lambda result: result.get(timeout=START), is_echo),
            "task count": pipelined(count.delay, lambda result: result.get(timeout=START), Counts()),
        }
        asyncio.run(take_turns(bursts))


if __name__ == "__main__":
    main()
