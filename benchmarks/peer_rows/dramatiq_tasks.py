"""dramatiq with two worker processes of eight threads each, its default; Redis has messages, results and counters."""

from __future__ import annotations

import asyncio
import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peer_rows.turns import HELLO, WORKERS, Counts, is_echo, pipelined, take_turns
from benchmarks.peer_rows.worker_processes import START, workers

URL = os.environ["PEERS_REDIS"]
broker = RedisBroker(url=f"{URL}/0")
broker.add_middleware(Results(backend=RedisBackend(url=f"{URL}/1")))
dramatiq.set_broker(broker)
sessions = redis.Redis.from_url(f"{URL}/2")


@dramatiq.actor(store_results=True)
def echo(value: object) -> object:
    return value


@dramatiq.actor(store_results=True)
def count(session: int) -> int:
    return sessions.incr(f"session:{session}")


def result(message: dramatiq.Message[object]) -> object:
    return message.get_result(block=True, timeout=int(1e3 * START))


def main() -> None:
    module = "benchmarks.peer_rows.dramatiq_tasks"
    with workers("dramatiq", module, "--processes", str(WORKERS), "--threads", "8"):
        result(echo.send(HELLO))
        bursts = {
            "actor echo": pipelined(lambda _place: echo.send(HELLO), result, is_echo),
            "actor count": pipelined(count.send, result, Counts()),
        }
        asyncio.run(take_turns(bursts))


if __name__ == "__main__":
    main()
