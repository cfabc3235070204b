"""A batch of images, to a worker and back, without its bytes crossing gRPC: python examples/tensor_by_reference.py."""

import asyncio

import numpy as np

from snakepit_otel import BaseAdapter, Snakepit, tool, zero_copy


class Darkroom(BaseAdapter):
    @tool
    def invert(self, images: np.ndarray) -> np.ndarray:
        """Return the negatives. The images lie in the caller's memory, and cannot be written to."""
        negatives: np.ndarray = zero_copy.empty(images.shape, images.dtype)
        # Written once, into memory that the caller will read: returning it copies nothing.
        return np.subtract(255, images, out=negatives)


async def main() -> None:
    async with Snakepit(adapter=Darkroom, workers=1) as pit:
        images = np.zeros((32, 512, 512, 3), dtype=np.uint8)
        # One copy, into shared memory; what `zero_copy.empty` made needs none.
        ref = zero_copy.from_numpy(images)
        negatives = await pit.execute("invert", {"images": ref})
        print(f"{ref.bytes:,} bytes went there, {negatives.nbytes:,} came back")
        print("spent with its request:", ref.released)
        # The result is the caller's to keep.
        print("every pixel is white:", bool((negatives == 255).all()))


if __name__ == "__main__":
    asyncio.run(main())
