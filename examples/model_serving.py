"""A scikit-learn model, loaded once in each worker, for batches by reference: python examples/model_serving.py."""

import asyncio
from typing import Any, ClassVar

import numpy as np

from snakepit_otel import BaseAdapter, Snakepit, tool, zero_copy


def digits() -> tuple[Any, Any, Any, Any]:
    """Return images and labels to learn from, and others to be tried on."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    seen, unseen, seen_labels, unseen_labels = train_test_split(images, labels, test_size=0.4, random_state=7)
    return seen, seen_labels, unseen, unseen_labels


class Digits(BaseAdapter):
    model: ClassVar[Any]

    @classmethod
    def on_worker_start(cls) -> None:
        """Make the model; joblib.load("model.joblib") in real life. The worker gets no request before this is done."""
        from sklearn.svm import SVC

        seen, labels, _, _ = digits()
        cls.model = SVC(gamma=0.001).fit(seen, labels)

    @tool(idempotent=True)
    def classify(self, images: np.ndarray) -> np.ndarray:
        """Return the digit on each image; the images are read where the caller has put them."""
        labels: np.ndarray = self.model.predict(images)
        return labels


async def main() -> None:
    _, _, unseen, labels = digits()
    async with Snakepit(Digits, workers=2) as pit:
        halves = np.array_split(unseen, 2)
        found = await asyncio.gather(
            *(pit.execute("classify", {"images": zero_copy.from_numpy(half)}, timeout=30) for half in halves)
        )
        print(f"{len(unseen)} images, {(np.concatenate(found) == labels).mean():.1%} right")


if __name__ == "__main__":
    asyncio.run(main())
