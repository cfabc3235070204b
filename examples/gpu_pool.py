"""A pool with a GPU for each worker, which runs without GPUs, too: python examples/gpu_pool.py."""

import asyncio
import os
from typing import ClassVar

from snakepit_otel import BaseAdapter, Snakepit, WorkerContext, tool

GPUS = 2


class Generator(BaseAdapter):
    device: ClassVar[str]

    @classmethod
    def on_worker_start(cls, worker: WorkerContext) -> None:
        """Load the model onto the worker's GPU: the variable is set before anything is imported."""
        # The process sees one GPU, so that it is cuda:0 in every worker: model.to("cuda:0")
        cls.device = f"worker {worker.slot} on GPU {os.environ['CUDA_VISIBLE_DEVICES']}"

    @tool
    async def where(self) -> str:
        """Return the worker and its GPU, after the time that a model would take."""
        await asyncio.sleep(0.2)
        return self.device


async def devices_of(pit: Snakepit) -> list[str]:
    """Keep all workers busy, and return where the requests ran."""
    size = pit.pool.settings.size
    return sorted(await asyncio.gather(*(pit.execute("where", timeout=60) for _ in range(size))))


async def main() -> None:
    one_each = {"size": GPUS, "environment": {"CUDA_VISIBLE_DEVICES": "{slot}"}, "replacement_order": "stop_first"}
    async with Snakepit(Generator, pool=one_each) as pit:
        before = await devices_of(pit)
        print("\n".join(before))
        await pit.restart_workers()
        print("the same after a restart:", await devices_of(pit) == before)

    # Two workers for each GPU: the list is repeated over the slots.
    two_each = {"size": 2 * GPUS, "slot_environment": [{"CUDA_VISIBLE_DEVICES": str(gpu)} for gpu in range(GPUS)]}
    async with Snakepit(Generator, pool=two_each) as pit:
        print("\n".join(await devices_of(pit)))


if __name__ == "__main__":
    asyncio.run(main())
