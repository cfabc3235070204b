"""Two adapters: a classifier with a history for each user, and vectors that cross by reference."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import numpy as np

from snakepit_otel import BaseAdapter, tool

KEPT = 50  # labels in a user's history
DIMENSIONS = 256
SENTENCES = {
    "praise": ("what a lovely day", "I love this", "great work, thank you", "the food was wonderful"),
    "complaint": ("this is broken again", "I want my money back", "terrible service", "the food was cold and awful"),
    "question": ("when do you open?", "how much is it?", "where is my order?", "can you help me?"),
}


class Classifier(BaseAdapter):
    """Labels texts, and counts what each user has sent."""

    model: ClassVar[Any]

    @classmethod
    def on_worker_start(cls) -> None:
        """Load the model, before the worker gets its first request."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        pairs = [(text, label) for label, texts in SENTENCES.items() for text in texts]
        vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
        cls.model = make_pipeline(vectors, LogisticRegression(C=10)).fit(*zip(*pairs, strict=True))

    @tool(idempotent=True)
    def labels(self) -> list[str]:
        """Return the labels that there are."""
        return [str(label) for label in self.model.classes_]

    @tool
    def classify(self, text: str) -> dict[str, Any]:
        """Return the label of a text with its probability, and add it to the user's history."""
        if not text.strip():
            raise ValueError("there is no text")
        probabilities = self.model.predict_proba([text])[0]
        best = int(probabilities.argmax())
        label = str(self.model.classes_[best])
        history = self.session_context.state.change("history", lambda past: [*past, label][-KEPT:], default=[])
        return {"label": label, "probability": float(probabilities[best]), "seen": len(history)}

    @tool
    def history(self) -> list[str]:
        """Return the labels of the user's texts, the oldest first."""
        labels: list[str] = self.session_context.state.get("history", [])
        return labels

    @tool
    async def explain(self, text: str) -> AsyncIterator[dict[str, Any]]:
        """Stream each word of a text with its own label."""
        for word in text.split():
            # The model would hold up the other requests of this event loop.
            label = await asyncio.to_thread(self.model.predict, [word])
            yield {"word": word, "label": str(label[0])}


class Vectors(BaseAdapter):
    """Embeds texts, and finds the nearest ones; arrays stay where they are."""

    @tool(idempotent=True)
    def embed(self, texts: list[str]) -> np.ndarray:
        """Return a unit vector for each text: shape (texts, 256), float32."""
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for at in range(len(text) - 2):
                row[int.from_bytes(text[at : at + 3].lower().encode(), "big") % DIMENSIONS] += 1
        lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: np.ndarray = vectors / np.maximum(lengths, 1)
        return unit

    @tool(idempotent=True)
    def nearest(self, vectors: np.ndarray, to: int, count: int = 3) -> list[int]:
        """Return the rows that are nearest to the row `to`, without itself."""
        order = np.argsort(-(vectors @ vectors[to]), kind="stable")
        return [int(row) for row in order if row != to][:count]
