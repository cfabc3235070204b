"""Quantiles of what happens so rarely that the first time of all must count."""

from __future__ import annotations

from collections.abc import Iterable

from dashboards.promql import RANGE, Scope, Where, occurrences_of
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry.definitions import Metric


def quantile_of_all(
    scope: Scope, quantile: float, metric: Metric, by: Iterable[str] = (), where: Where | None = None
) -> str:
    """Return a quantile of all that a histogram has measured within the time shown.

    `Scope.quantile` goes by rates, to which a series that begins has measured nothing yet; of a pool that has started
    its workers once, it says nothing at all. Where there was nothing to measure, nothing is returned, and not NaN.
    """
    within = occurrences_of(scope.series(metric, "_bucket", where), RANGE)
    return f"histogram_quantile({quantile}, sum by ({', '.join(('le', *map(label_name, by)))}) ({within})) >= 0"
