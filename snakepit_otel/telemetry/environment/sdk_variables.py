"""Valid values in `os.environ`, for the SDK and exporters that read it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from snakepit_otel.telemetry.environment.variables import OTEL

_lock = threading.RLock()


@contextmanager
def applied(texts: Mapping[str, str]) -> Iterator[None]:
    """Set the known OTEL_ variables to these texts, and remove the others, until the block ends."""
    with _lock:
        before = {name: os.environ.get(name) for name in OTEL}
        changed = [name for name in OTEL if before[name] != texts.get(name)]
        try:
            for name in changed:
                _set(name, texts.get(name))
            yield
        finally:
            for name in changed:
                _set(name, before[name])


def _set(name: str, text: str | None) -> None:
    if text is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = text
