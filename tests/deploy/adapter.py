"""An adapter that needs what a locked-down service must still have: shared memory, and processes of its own."""

from __future__ import annotations

import subprocess
import sys

from snakepit_otel import BaseAdapter, tool, zero_copy


class Sums(BaseAdapter):
    """Adds numbers."""

    @tool
    def total(self, values: list[int]) -> int:
        """Add numbers in another process, and put the result into shared memory."""
        program = f"print(sum({values!r}))"
        added = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
        shared = zero_copy.empty((4096,), "int64")
        shared[:] = added
        return int(shared[0])
