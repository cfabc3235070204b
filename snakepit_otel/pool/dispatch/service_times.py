"""Expected service times of requests, estimated from those that workers have completed."""

from __future__ import annotations

from bisect import insort

_MAX_TOOLS = 256
_WARM_UP = 5
_WEIGHT = 0.1
_MAX_RATIO = 10.0
_MIN_STEP_S = 0.01


class _Estimate:
    """A running mean in which the weight of an outlier is bounded."""

    __slots__ = ("_first", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._first: list[float] | None = []

    def add(self, seconds: float) -> None:
        if self._first is not None:
            # The first request often loads a model or opens connections, which would distort a mean for long.
            insort(self._first, seconds)
            self.value = self._first[(len(self._first) - 1) // 2]
            if len(self._first) == _WARM_UP:
                self._first = None
            return
        most = _MAX_RATIO * self.value + _MIN_STEP_S
        self.value += _WEIGHT * (min(seconds, most) - self.value)


class ServiceTimes:
    """Moving averages of the seconds that requests take: by tool, for 256 of them at most, and overall.

    The first five give their median; each later one weighs a tenth, so that one outlier at most doubles the estimate.
    """

    def __init__(self) -> None:
        self._tools: dict[str, _Estimate] = {}
        self._overall = _Estimate()

    def add(self, tool: str, seconds: float) -> None:
        """Add the seconds that a worker took for a request of `tool`."""
        self._overall.add(seconds)
        estimate = self._tools.get(tool)
        if estimate is None:
            if len(self._tools) >= _MAX_TOOLS:
                return
            estimate = self._tools[tool] = _Estimate()
        estimate.add(seconds)

    def of(self, tool: str) -> float:
        """Return the seconds that a request of `tool` is expected to take; 0 while unknown."""
        estimate = self._tools.get(tool)
        if estimate is not None:
            return estimate.value
        # With more tools than estimates, this tool may never get an estimate of its own.
        return self._overall.value if len(self._tools) >= _MAX_TOOLS else 0.0

    @property
    def overall(self) -> float:
        """The seconds that a request of any tool is expected to take; 0 while unknown."""
        return self._overall.value
