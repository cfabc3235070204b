"""How long requests take on a worker, learnt from those that it has answered."""

from __future__ import annotations

from bisect import insort

_TOOLS = 256
_WARM_UP = 5
_WEIGHT = 0.1
_LEAP = 10.0
_NEXT_TO_NOTHING = 0.01


class _Estimate:
    """A running mean that no single request carries away."""

    __slots__ = ("_first", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._first: list[float] | None = []

    def add(self, seconds: float) -> None:
        if self._first is not None:
            # The very first request often loads a model or opens connections; a mean would remember that for long.
            insort(self._first, seconds)
            self.value = self._first[(len(self._first) - 1) // 2]
            if len(self._first) == _WARM_UP:
                self._first = None
            return
        most = _LEAP * self.value + _NEXT_TO_NOTHING
        self.value += _WEIGHT * (min(seconds, most) - self.value)


class ServiceTimes:
    """Moving averages of the seconds that requests take: by tool, for 256 of them at most, and overall.

    The first five of each give their median. After that each request has a weight of a tenth, and at most that of one
    ten times as long as usual, so that one outlier at most doubles what is expected of the next.
    """

    def __init__(self) -> None:
        self._tools: dict[str, _Estimate] = {}
        self._overall = _Estimate()

    def add(self, tool: str, seconds: float) -> None:
        """Learn from a request of `tool` that a worker has answered after so many seconds."""
        self._overall.add(seconds)
        estimate = self._tools.get(tool)
        if estimate is None:
            if len(self._tools) >= _TOOLS:
                return
            estimate = self._tools[tool] = _Estimate()
        estimate.add(seconds)

    def of(self, tool: str) -> float:
        """Return the seconds that a request of `tool` is expected to take; 0 while that is unknown."""
        estimate = self._tools.get(tool)
        if estimate is not None:
            return estimate.value
        # Where there are too many tools to know each, nothing will ever be known of this one.
        return self._overall.value if len(self._tools) >= _TOOLS else 0.0

    @property
    def overall(self) -> float:
        """The seconds that a request of any tool is expected to take; 0 while that is unknown."""
        return self._overall.value
