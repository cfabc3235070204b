"""A Celery task that leaves the model to warm workers: python examples/from_celery.py."""

import asyncio
import os
from typing import Any

from celery import Celery

from snakepit_otel import BaseAdapter, Client, Snakepit, tool
from snakepit_otel.errors import SnakepitError

app = Celery("reports", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True  # this program is its own worker; leave it out where Celery's workers run


class Scorer(BaseAdapter):
    """The body of the task, with its model: loaded once in each worker, not in each process of Celery."""

    @tool(idempotent=True)
    def score(self, text: str) -> float:
        return sum(character.isupper() for character in text) / max(len(text), 1)


@app.task(bind=True, max_retries=3)
def score_report(self: Any, report: str, texts: list[str]) -> dict[str, float]:
    """Score the texts of a report; what Celery is for stays here: schedule, durable queue, retry after minutes."""

    async def scores() -> list[float]:
        async with Client() as client:
            requests = (client.execute("score", {"text": text}, timeout=30) for text in texts)
            return list(await asyncio.gather(*requests))

    try:
        return {report: max(asyncio.run(scores()))}
    except SnakepitError as error:
        if error.retryable:
            raise self.retry(exc=error, countdown=60) from error
        raise


async def main() -> None:
    async with Snakepit(Scorer, workers=2) as pit:
        # As a rule the server is another process, and Client() finds it: snakepit-otel serve reports.scorer:Scorer
        os.environ["SNAKEPIT_OTEL_ADDRESS"] = pit.socket
        result = await asyncio.to_thread(score_report.delay, "monday", ["All quiet", "NOT QUIET"])
        print(result.get())


if __name__ == "__main__":
    asyncio.run(main())
