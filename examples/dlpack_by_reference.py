"""A tensor of one library, opened by another: python examples/dlpack_by_reference.py."""

import asyncio

import numpy as np
import pyarrow as pa

from snakepit_otel import BaseAdapter, Snakepit, tool, zero_copy


class Meter(BaseAdapter):
    @tool
    def energy(self, samples: zero_copy.Reference) -> float:
        """Return the sum of squares. A reference speaks DLPack: torch.from_dlpack(samples) does it, too."""
        array = np.from_dlpack(samples)
        return float(array @ array)


async def main() -> None:
    async with Snakepit(adapter=Meter, workers=1) as pit:
        # PyArrow's here, but any library's tensor will do that has __dlpack__ and lies in the CPU's memory.
        samples = pa.array(np.full(1_000_000, 0.5, dtype=np.float32))
        with zero_copy.from_dlpack(samples) as ref:
            print(ref.kind, ref.device, ref.dtype, ref.shape, f"owner {ref.owner}")
            print("energy:", await pit.execute("energy", {"samples": ref}))


if __name__ == "__main__":
    asyncio.run(main())
