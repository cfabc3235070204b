"""The demo's adapter: reads handwritten digits, and remembers for each session what it has read."""

from __future__ import annotations

from typing import Any

from snakepit_otel.adapters import BaseAdapter, tool
from snakepit_otel.zero_copy import Reference

# Trained once in each worker, shared by all its requests.
_model_cache: dict[str, Any] = {}
_KEPT = 20


class DigitReader(BaseAdapter):
    """Classifies images of 8 × 8 pixels with a support vector machine trained on scikit-learn's digits."""

    def initialize(self) -> None:
        """Take the model from the cache, or train it."""
        if "model" not in _model_cache:
            from sklearn.svm import SVC

            images, labels, _, _ = split_digits()
            _model_cache["model"] = SVC(gamma=0.001).fit(images, labels)
        self.model = _model_cache["model"]

    @tool
    def about(self) -> str:
        """Say what the model is."""
        return f"{type(self.model).__name__}, {self.model.n_support_.sum()} support vectors"

    @tool
    def read_digit(self, pixels: list[float]) -> dict[str, Any]:
        """Return the digit on an image of 64 pixels, and how many this session has had read."""
        digit = int(self.model.predict([pixels])[0])
        state = self.session_context.state
        history = state.change("history", lambda past: [*past, digit][-_KEPT:], default=[])
        return {"digit": digit, "history": history}

    @tool
    def score_digits(self, images: Reference) -> Any:
        """Return an array of ten scores for each image; the images lie where the caller has put them."""
        return self.model.decision_function(images.to_numpy())


def split_digits() -> tuple[Any, Any, Any, Any]:
    """Return training images and labels, and others that the model has not seen."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        digits.data, digits.target, test_size=0.4, random_state=7
    )
    return seen, seen_labels, unseen, unseen_labels
