"""An adapter that takes its time to be imported."""

from __future__ import annotations

import time

from snakepit_otel import BaseAdapter, tool

time.sleep(60)


class Slow(BaseAdapter):
    """Is never there."""

    @tool
    def nothing(self) -> None:
        """Do nothing."""
