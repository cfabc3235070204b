"""A deadline that several steps share, so that nothing the doctor does can hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadline:
    """A moment by which to be done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left, and a little where none are: sockets take no zero for a timeout."""
        return max(0.01, self._end - time.monotonic())


class _Task(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.result: T | None = None
        self.error: BaseException | None = None
        # A daemon: what is stuck in a name server or a C library is left behind, and does not keep us here.
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            self.error = error


def side_by_side(works: Mapping[str, Callable[[], T]], deadline: Deadline) -> dict[str, T | None]:
    """Run all at once and return what each returned; None for one that was not done by the deadline."""
    tasks = {name: _Task(work) for name, work in works.items()}
    for task in tasks.values():
        task.thread.join(deadline.left)
        if task.error is not None:
            raise task.error
    return {name: task.result for name, task in tasks.items()}
