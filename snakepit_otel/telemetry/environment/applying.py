"""Shows the SDK and its exporters, which read `os.environ`, the values that they take."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from snakepit_otel.telemetry.environment.variables import OTEL

_lock = threading.RLock()


@contextmanager
def applied(texts: Mapping[str, str]) -> Iterator[None]:
    """Let the OTEL_ variables that are known be these, and no others, for as long as this lasts.

    What is legal as it stands is not touched. Afterwards all is as it was, for whoever inherits it.
    """
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
