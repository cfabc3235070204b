"""A deployment of Ray Serve with two replicas, called by its handle; Redis keeps the sessions' counters.

A replica has no sessions; what it keeps is its own and is lost with it. There is no HTTP proxy, so that a call has
no hop more than it needs.
"""

from __future__ import annotations

import asyncio
import os
import sys

import ray
from ray import serve

from benchmarks.peer_rows.ray_actors import start_ray
from benchmarks.peer_rows.turns import HELLO, IN_FLIGHT, WORKERS, Counts, concurrent, is_echo, take_turns


class Sessions:
    def __init__(self, url: str) -> None:
        from redis.asyncio import Redis

        self._redis = Redis.from_url(url)

    async def echo(self, value: object) -> object:
        return value

    async def count(self, session: int) -> int:
        return await self._redis.incr(f"session:{session}")


def main() -> None:
    start_ray(sys.argv[1])
    try:
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = serve.deployment(
            Sessions,
            name="sessions",
            num_replicas=WORKERS,
            max_ongoing_requests=IN_FLIGHT,
            ray_actor_options={"num_cpus": 0},
            logging_config=quiet,
        )
        handle = serve.run(deployment.bind(os.environ["PEERS_REDIS"]), route_prefix=None)
        bursts = {
            "handle echo": concurrent(lambda _place: handle.echo.remote(HELLO), is_echo),
            "handle count": concurrent(handle.count.remote, Counts()),
        }
        asyncio.run(take_turns(bursts))
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
