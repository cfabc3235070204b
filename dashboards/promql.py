"""The few forms of PromQL that panels and rules are made of, with names from the registry.

A query names metrics and attributes by their constants, so that a renamed one is an error here. What they are called in
Prometheus is said in one place, `semconv.prometheus_names`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from semconv.prometheus_names import label_name, series_name
from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Metric

# The window of Grafana's own choice: at least four scrapes long, and no shorter than a pixel.
RATE = "$__rate_interval"
# The whole time that the dashboard shows.
RANGE = "$__range"

# Of which store a reading of a ledger is, and the names of stores in memory, each of which is one authority's.
STORE = n.SNAKEPIT_SESSION_STORE
IN_MEMORY = "memory-.*"

# The labels that say which deployment a series is of.
SERVICE = ("service_namespace", "service_name")


@dataclass(frozen=True)
class Matcher:
    """What a label must be."""

    operator: str
    text: str

    def on(self, label: str) -> str:
        return f'{label}{self.operator}"{self.text}"'


PRESENT = Matcher("!=", "")
ABSENT = Matcher("=", "")


def one_of(values: Iterable[str]) -> Matcher:
    """Match any of these values, none of which has a character that means something in a regular expression."""
    return Matcher("=~", "|".join(values))


def none_of(values: Iterable[str]) -> Matcher:
    return Matcher("!~", "|".join(values))


# Attributes, or labels that every series has, and what they must be.
Where = Mapping[str, Matcher | str]


@dataclass(frozen=True)
class Scope:
    """What every query of a page or of the rules has in common: which series it looks at, and how it groups them."""

    # By label; those of a metric's own attributes are used where the metric has the attribute.
    matchers: Mapping[str, Matcher]
    by: tuple[str, ...] = ()

    def also(self, **matchers: Matcher) -> Scope:
        """Return a scope that is narrower by these labels."""
        return Scope({**self.matchers, **matchers}, self.by)

    def series(self, metric: Metric, part: str = "", where: Where | None = None) -> str:
        """Return the selector of a metric's series; of a histogram, of one of its parts."""
        own = {label_name(attribute) for attribute in metric.attributes}
        chosen = {
            label: matcher
            for label, matcher in self.matchers.items()
            if label in own or not label.startswith("snakepit_")
        }
        for attribute, value in (where or {}).items():
            label = label_name(attribute)
            if label not in own and label not in (*SERVICE, "instance", "snakepit_role", "le"):
                raise ValueError(f"{metric.name} has no attribute {attribute}")
            chosen[label] = value if isinstance(value, Matcher) else Matcher("=", value)
        matchers = ",".join(matcher.on(label) for label, matcher in chosen.items())
        name = series_name(metric.name, metric.instrument, metric.unit) + part
        return f"{name}{{{matchers}}}" if matchers else name

    def total(self, metric: Metric, by: Iterable[str] = (), where: Where | None = None) -> str:
        by = tuple(by)
        return self._sum(self._each_once(metric, self.series(metric, where=where), by), by)

    def rate(self, metric: Metric, by: Iterable[str] = (), where: Where | None = None, window: str = RATE) -> str:
        """How often a second: of a counter its increase, of a histogram its count's."""
        by = tuple(by)
        rates = f"rate({self.series(metric, _count(metric), where)}[{window}])"
        return self._sum(self._each_once(metric, rates, by), by)

    def rate_of_sum(
        self, metric: Metric, by: Iterable[str] = (), where: Where | None = None, window: str = RATE
    ) -> str:
        """How much a second of what a histogram has measured: of seconds, how many are spent at a time."""
        return self._sum(f"rate({self.series(metric, '_sum', where)}[{window}])", by)

    def occurrences(
        self, metric: Metric, by: Iterable[str] = (), where: Where | None = None, window: str = RANGE
    ) -> str:
        """How many within the window, the first one of a series included: see `occurrences_of` and `_growth`."""
        by = tuple(by)
        if metric.combine != "sum":
            return self._sum(self._growth(metric, by, where or {}, window), by)
        return self._sum(occurrences_of(self.series(metric, _count(metric), where), window), by)

    def per_store(self, metric: Metric, by: Iterable[str] = (), where: Where | None = None, offset: str = "") -> str:
        """Return a metric of the ledger for each store by itself, the authorities' figures being one."""
        series = self.series(metric, where=where)
        return self._each_once(metric, f"{series} offset {offset}" if offset else series, tuple(by))

    def quantile(
        self,
        quantile: float,
        metric: Metric,
        by: Iterable[str] = (),
        where: Where | None = None,
        window: str = RATE,
    ) -> str:
        """Return the value below which this share of a histogram's values is."""
        return f"histogram_quantile({quantile}, {self.buckets(metric, by, where, window)})"

    def quantile_of_all(
        self, quantile: float, metric: Metric, by: Iterable[str] = (), where: Where | None = None
    ) -> str:
        """Return a quantile of all that a histogram has measured within the time shown; nothing where that is nothing.

        For what happens rarely. `quantile` goes by rates, to which a series that begins has measured nothing yet: of a
        pool that has started its workers once, it says nothing at all.
        """
        within = occurrences_of(self.series(metric, "_bucket", where), RANGE)
        return f"histogram_quantile({quantile}, {self._sum(within, ('le', *by))}) >= 0"

    def buckets(self, metric: Metric, by: Iterable[str] = (), where: Where | None = None, window: str = RATE) -> str:
        """How often a second a histogram's values fall in each bucket, for heat maps and quantiles."""
        return self._sum(f"rate({self.series(metric, '_bucket', where)}[{window}])", ("le", *by))

    def mean(self, metric: Metric, by: Iterable[str] = (), where: Where | None = None, window: str = RATE) -> str:
        """Return the mean of a histogram's values; nothing where there were none."""
        by = tuple(by)
        return f"{self.rate_of_sum(metric, by, where, window)} / ({self.rate(metric, by, where, window)} > 0)"

    def _each_once(self, metric: Metric, expression: str, by: tuple[str, ...]) -> str:
        """Take one figure for each store, where all authorities over it report the same one; else all there are."""
        if metric.combine == "sum":
            return expression
        return f"{metric.combine} by ({', '.join(self._of_ledger(metric, by))}) ({expression})"

    def _growth(self, metric: Metric, by: tuple[str, ...], where: Where, window: str) -> str:
        """How many a store's ledger has counted within the window, in whole numbers, whoever was there to report it.

        It is the difference of two readings of the store. `increase` knows series: an authority that begins anew and
        reports what the store has long counted would be a beginning to it. The reading before the window is looked
        for in an hour; else a store in memory has begun within the window, from nothing, and of another there is
        nothing but the first reading in it, with which each authority begins before it counts.
        """
        series = self.series(metric, where=where)

        def each(function: str, expression: str) -> str:
            return f"{function} by ({', '.join(self._of_ledger(metric, by))}) ({expression})"

        def first(operator: str) -> str:
            chosen = self.series(metric, where={**where, STORE: Matcher(operator, IN_MEMORY)})
            return each("min", f"min_over_time({chosen}[{window}])")

        before = each("max", f"last_over_time({series}[1h] offset {window})")
        begin = f"{before} or {first('!~')} or {first('=~')} * 0"
        return f"clamp_min({each('max', f'max_over_time({series}[{window}])')} - ({begin}), 0)"

    def _of_ledger(self, metric: Metric, by: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels of one figure of a store: all but those of the authority that reports it."""
        return self._labels((*by, *sorted(metric.attributes)))

    def _labels(self, by: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.by, *map(label_name, by))))

    def _sum(self, expression: str, by: Iterable[str]) -> str:
        labels = self._labels(by)
        return f"sum by ({', '.join(labels)}) ({expression})" if labels else f"sum({expression})"


def occurrences_of(series: str, window: str) -> str:
    """How many each of these series has counted within the window, in whole numbers.

    `increase` alone does not know the first ones: a series begins with them. One that was not there before the window
    has counted all it has within it. It is looked for in the hour before, so that neither a pause of Prometheus nor of
    the collector is taken for a beginning. And `increase` extrapolates: three are 3.2 to it, which is more than three.
    """
    born = f"last_over_time({series}[{window}]) unless last_over_time({series}[1h] offset {window})"
    return f"({born}) or round(increase({series}[{window}]))"


def share(part: str, whole: str) -> str:
    """Return what part of the whole, 0 to 1: 0 where there is no part, and nothing where there is no whole."""
    return f"(({part}) or ({whole}) * 0) / (({whole}) > 0)"


def _count(metric: Metric) -> str:
    return "_count" if metric.instrument == "histogram" else ""


# What is chosen at the top of a dashboard.
PANELS = Scope(
    {
        "service_namespace": Matcher("=~", "$service_namespace"),
        "service_name": Matcher("=~", "$service_name"),
        "instance": Matcher("=~", "$instance"),
    }
)
BY_POOL = {"snakepit_pool_name": Matcher("=~", "$pool")}
BY_TOOL = {"snakepit_tool_name": Matcher("=~", "$tool")}

# Every deployment, each by itself.
RULES = Scope({}, SERVICE)
