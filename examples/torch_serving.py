"""A model in the manner of PyTorch, over tensors by DLPack: python examples/torch_serving.py."""

import asyncio
from typing import Any, ClassVar

import numpy as np

from snakepit_otel import BaseAdapter, Snakepit, tool, zero_copy
from snakepit_otel.zero_copy import Reference

try:
    import torch
except ImportError:  # without PyTorch, this program shows the same with a model of NumPy
    torch = None

CLASSES = 3


def load_model() -> Any:
    """Return a linear model of four inputs; torch.jit.load("model.pt") in real life."""
    weights = np.eye(CLASSES, 4, dtype=np.float32)
    if torch is None:
        return weights.T
    model = torch.nn.Linear(4, CLASSES, bias=False)
    model.weight.data = torch.from_numpy(weights)
    return model.eval()


class Linear(BaseAdapter):
    model: ClassVar[Any]

    @classmethod
    def on_worker_start(cls) -> None:
        """Load the model; with a GPU, to the one that this worker is given: see the recipe of GPU pools."""
        cls.model = load_model()

    @tool(idempotent=True)
    def classify(self, batch: Reference) -> np.ndarray:
        """Return the scores of each row: shape (rows, 3), float32."""
        if torch is None:
            scores: np.ndarray = batch.to_numpy() @ self.model
            return scores
        with torch.inference_mode():
            # The tensor's memory is the caller's, so it is not to be written to.
            return np.asarray(self.model(torch.from_dlpack(batch)))


async def main() -> None:
    async with Snakepit(Linear, workers=1) as pit:
        rows = np.array([[0, 5, 1, 9], [7, 0, 2, 9]], dtype=np.float32)
        scores = await pit.execute("classify", {"batch": zero_copy.from_numpy(rows)}, timeout=30)
        print("classes:", scores.argmax(axis=1).tolist())


if __name__ == "__main__":
    asyncio.run(main())
