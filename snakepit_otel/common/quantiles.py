"""Quantiles of times, from counts in a fixed number of ranges."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

_SHORTEST_S = 10e-6
_LONGEST_S = 3_600.0
_RATIO = 1.2  # of the ends of a range: a quantile is off by a tenth at most
_RECENT = 2_048  # with so many, the older ones begin to count less


def _ends() -> tuple[float, ...]:
    ends = [_SHORTEST_S]
    while ends[-1] < _LONGEST_S:
        ends.append(ends[-1] * _RATIO)
    return tuple(ends)


_ENDS: Final = _ends()


class Quantiles:
    """Counts of times; of many, the last one or two thousand decide."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(_ENDS) + 1)
        self._total = 0

    def add(self, seconds: float) -> None:
        """Add a time."""
        self._counts[bisect_left(_ENDS, seconds)] += 1
        self._total += 1
        if self._total >= _RECENT:
            self._counts = [(count + 1) // 2 for count in self._counts]
            self._total = sum(self._counts)

    def of(self, share: float) -> float | None:
        """Return the time below which this share of the times is, within a tenth; None before the first."""
        if not self._total:
            return None
        left = share * self._total
        for place, count in enumerate(self._counts):
            if count and left <= count:
                end = _ENDS[min(place, len(_ENDS) - 1)]
                begin = _ENDS[place - 1] if 0 < place < len(_ENDS) else 0.0 if not place else end
                return begin + (end - begin) * left / count
            left -= count
        return _ENDS[-1]
