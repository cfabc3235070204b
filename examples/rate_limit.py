"""A limit of requests per second for each tenant, as middleware: python examples/rate_limit.py."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from snakepit_otel import BaseAdapter, Middleware, MiddlewareRequest, RequestRefused, Snakepit, tool

MAX_TENANTS = 10_000  # for which a bucket is kept; the one that was used least recently goes first


class RateLimit(Middleware):
    """A token bucket for each tenant: `burst` requests at once, and `per_second` from then on.

    It is the authority's, so it holds for all workers. Several authorities each have a limit of their own.
    """

    def __init__(self, per_second: float = 10, burst: int = 20, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def before(self, request: MiddlewareRequest) -> None:
        tenant = request.metadata.get("tenant", "")
        tokens, counted = self._buckets.pop(tenant, (float(self._burst), self._now()))
        now = self._now()
        tokens = min(tokens + (now - counted) * self._per_second, self._burst)
        admitted = tokens >= 1
        self._buckets[tenant] = (tokens - admitted, now)
        if len(self._buckets) > MAX_TENANTS:
            self._buckets.popitem(last=False)
        if not admitted:
            wait = (1 - tokens) / self._per_second
            message = f"tenant {tenant!r} has more than {self._per_second:g} requests a second; retry in {wait:.2f} s"
            raise RequestRefused(message, status="resource_exhausted")


class Echo(BaseAdapter):
    @tool
    def echo(self, value: int) -> int:
        return value


async def main() -> None:
    clock = [0.0]  # a real one is the default
    limit = RateLimit(per_second=2, burst=3, now=lambda: clock[0])
    async with Snakepit(Echo, workers=1, middleware=[limit]) as pit:

        async def echo(value: int, tenant: str) -> None:
            try:
                print(tenant, await pit.execute("echo", {"value": value}, metadata={"tenant": tenant}))
            except RequestRefused as error:
                print(f"refused: {error} ({error.status})")

        for value in range(4):
            await echo(value, "acme")
        await echo(1, "others")
        clock[0] += 0.5
        await echo(4, "acme")


if __name__ == "__main__":
    asyncio.run(main())
