"""A middleware for tenants: an attribute on spans and events, and a limit for each: python examples/tenancy.py."""

import asyncio
from collections import Counter
from typing import Any

from snakepit_otel import (
    BaseAdapter,
    Middleware,
    MiddlewareRequest,
    MiddlewareResult,
    RequestRefused,
    Snakepit,
    tool,
)


class Tenancy(Middleware):
    """Takes the tenant from the request's metadata, and lets each have `limit` requests at a time."""

    def __init__(self, limit: int = 10) -> None:
        self._limit = limit
        self._running: Counter[str] = Counter()

    def before(self, request: MiddlewareRequest) -> None:
        tenant = request.metadata.get("tenant")
        if not tenant:
            raise RequestRefused("the request's metadata name no tenant")
        request.set_attribute("tenant.id", tenant)
        if self._running[tenant] >= self._limit:
            message = f"tenant {tenant!r} has {self._running[tenant]} requests running; its limit is {self._limit}"
            raise RequestRefused(message, status="resource_exhausted")
        self._running[tenant] += 1
        # Middleware after this one may rewrite the metadata.
        request.values["tenant"] = tenant

    def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> None:
        self._release(request)

    def on_error(self, request: MiddlewareRequest, error: BaseException) -> None:
        # Also for requests that were cancelled; not for those that were refused above.
        self._release(request)

    def _release(self, request: MiddlewareRequest) -> None:
        tenant = request.values["tenant"]
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]


class Worker(BaseAdapter):
    __thread_safe__ = True

    @tool
    async def work(self, number: int, seconds: float = 0.0) -> str:
        """Return the tenant and the number; tools see the same metadata."""
        await asyncio.sleep(seconds)
        return f"{self.session_context.request_metadata['tenant']} {number}"


async def main() -> None:
    pool = {"size": 1, "profile": "thread", "threads_per_worker": 4}
    async with Snakepit(Worker, pool=pool, middleware=[Tenancy(limit=2)]) as pit:

        async def work(number: int, tenant: str | None = "acme", seconds: float = 0.0) -> Any:
            metadata = {} if tenant is None else {"tenant": tenant}
            try:
                return await pit.execute("work", {"number": number, "seconds": seconds}, metadata=metadata)
            except RequestRefused as error:
                return f"refused: {error} ({error.status})"

        for line in await asyncio.gather(work(1, seconds=0.5), work(2, seconds=0.5), work(3), work(4, tenant=None)):
            print(line)
        # The first two have ended, so there is room again.
        print(await work(10))


if __name__ == "__main__":
    asyncio.run(main())
