"""Panels in the house's style; each says in its description what is good, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge as bargauge_panel
from grafana_foundation_sdk.builders import common, loki, prometheus, tempo
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap as heatmap_panel
from grafana_foundation_sdk.builders import logs as logs_panel
from grafana_foundation_sdk.builders import stat as stat_panel
from grafana_foundation_sdk.builders import statetimeline as statetimeline_panel
from grafana_foundation_sdk.builders import table as table_panel
from grafana_foundation_sdk.builders import text as text_panel
from grafana_foundation_sdk.builders import timeseries as timeseries_panel
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import tempo as tempo_models
from grafana_foundation_sdk.models import text as text_models

from dashboards.colours import MEANINGS, NOTE, PLAIN, Steps
from dashboards.logql import LogQuery
from dashboards.promql import Scope
from dashboards.registry import values_of
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry._definitions import Metric

METRICS = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TRACES = common_models.DataSourceRef(type_val="tempo", uid="${tempo}")
LOGS = common_models.DataSourceRef(type_val="loki", uid="${loki}")


@dataclass(frozen=True)
class Query:
    """One query to Prometheus: PromQL, and what its series are called."""

    expression: str
    legend: str = ""
    exemplars: bool = False
    # Asked once, of now, instead of along the time shown: for what looks back over all of it by itself.
    instant: bool = False


def quantiles(scope: Scope, metric: Metric, *shares: float, exemplars: bool = False) -> list[Query]:
    """Return a query for each quantile of a histogram, called `p95` or the like."""
    return [Query(scope.quantile(share, metric), f"p{share * 100:.0f}", exemplars) for share in shares]


class LogLines(logs_panel.Panel):
    """A panel of log lines, and the query that it was made from."""

    def __init__(self, query: LogQuery) -> None:
        super().__init__()
        self.query = query


AnyPanel = TypeVar(
    "AnyPanel",
    bargauge_panel.Panel,
    heatmap_panel.Panel,
    LogLines,
    stat_panel.Panel,
    statetimeline_panel.Panel,
    table_panel.Panel,
    timeseries_panel.Panel,
)


def stat(
    title: str,
    query: Query,
    about: str,
    *,
    unit: str = "short",
    zero: str | None = None,
    steps: Steps | None = None,
    decimals: int | None = None,
    width: int = 4,
) -> stat_panel.Panel:
    """One number now, with its course behind it. `zero` is said where there is no series, and that is normal."""
    panel = (
        _laid_out(stat_panel.Panel(), title, about, width, 4)
        .unit(unit)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps or [(None, PLAIN)]))
        .with_target(_target(query, 0))
    )
    return _finished(panel, zero=zero, decimals=decimals)


def timeseries(
    title: str,
    queries: Query | Sequence[Query],
    about: str,
    *,
    unit: str = "short",
    zero: str | None = None,
    steps: Steps | None = None,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
    width: int = 8,
    height: int = 8,
) -> timeseries_panel.Panel:
    """Courses over time. With `steps`, a line at each threshold; the alerts have the same."""
    queries = [queries] if isinstance(queries, Query) else queries
    panel = (
        _laid_out(timeseries_panel.Panel(), title, about, width, height)
        .unit(unit)
        .line_width(1)
        .fill_opacity(30 if stacked else 10)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if steps:
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    for name in sorted({name for query in queries for name in _names_in(query.legend)} & MEANINGS.keys()):
        colour = {"mode": "fixed", "fixedColor": MEANINGS[name]}
        panel = panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=colour)])
    return _finished(panel, zero=zero)


def heatmap(
    title: str,
    query: Query,
    about: str,
    *,
    unit: str = "s",
    zero: str | None = None,
    width: int = 12,
    height: int = 8,
) -> heatmap_panel.Panel:
    """How a histogram's values lie over time; its exemplars are points that lead to their traces."""
    panel = (
        _laid_out(heatmap_panel.Panel(), title, about, width, height)
        .unit(unit)
        .y_axis(heatmap_panel.YAxisConfig().unit(unit))
        .color(
            heatmap_panel.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
        )
        .exemplars_color("rgba(61, 113, 217, 0.9)")
        .with_target(_target(query, 0).format(prometheus_models.PromQueryFormat.HEATMAP))
    )
    return _finished(panel, zero=zero)


def bars(
    title: str,
    query: Query,
    about: str,
    *,
    unit: str = "short",
    zero: str | None = None,
    steps: Steps | None = None,
    width: int = 8,
    height: int = 8,
) -> bargauge_panel.Panel:
    """One bar for each series, as it is now: for ranking what there are few of."""
    panel = (
        _laid_out(bargauge_panel.Panel(), title, about, width, height)
        .unit(unit)
        .min(0)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps or [(None, NOTE)]))
        .with_target(_target(query, 0).instant())
    )
    return _finished(panel, zero=zero)


def table(
    title: str,
    queries: Sequence[Query],
    about: str,
    *,
    columns: Sequence[str],
    keys: Sequence[str],
    units: dict[str, str] | None = None,
    zero: str | None = None,
    width: int = 12,
    height: int = 8,
) -> table_panel.Panel:
    """A row for each value of `keys`, which are labels that all queries have, and a column for each query."""
    panel = _laid_out(table_panel.Panel(), title, about, width, height).unit("short")
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number).instant().format(prometheus_models.PromQueryFormat.TABLE))
    values = [f"Value #{_letter(number)}" for number in range(len(queries))] if len(queries) > 1 else ["Value"]
    renamed = dict(zip(values, columns, strict=True))
    # Most first: where the rows are more than fit, those are the ones to see.
    panel = panel.sort_by([common.TableSortByFieldState().display_name(columns[0]).desc(True)])
    panel = panel.transformations(
        [
            models.DataTransformerConfig(id_val="merge", options={}),
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate((*keys, *values))},
                    "renameByName": {
                        **{key: key.removeprefix("snakepit_").replace("_", " ") for key in keys},
                        **renamed,
                    },
                },
            ),
        ]
    )
    for column, unit in (units or {}).items():
        panel = panel.override_by_name(column, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return _finished(panel, zero=zero)


def states(
    title: str,
    query: Query,
    about: str,
    *,
    bands: Sequence[tuple[float, str, str]],
    zero: str | None = None,
    width: int = 24,
    height: int = 5,
) -> statetimeline_panel.Panel:
    """A band for each series, by its value: triples of a value, its word and its colour."""
    panel = (
        _laid_out(statetimeline_panel.Panel(), title, about, width, height)
        .unit("short")
        .show_value(common_models.VisibilityMode.NEVER)
        .merge_values(True)
        .mappings(
            [
                models.ValueMap(
                    options={
                        f"{value:g}": models.ValueMappingResult(text=word, color=colour, index=index)
                        for index, (value, word, colour) in enumerate(bands)
                    }
                )
            ]
        )
        .with_target(_target(query, 0))
    )
    return _finished(panel, zero=zero)


def log_lines(
    title: str,
    query: LogQuery,
    about: str,
    *,
    oldest_first: bool = False,
    zero: str | None = None,
    width: int = 24,
    height: int = 9,
) -> LogLines:
    """Log records and events, newest first if not said otherwise; a trace id in them leads to the trace."""
    order = common_models.LogsSortOrder.ASCENDING if oldest_first else common_models.LogsSortOrder.DESCENDING
    panel = (
        _laid_out(LogLines(query), title, about, width, height, LOGS)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(order)
        .with_target(loki.Dataquery().ref_id("A").datasource(LOGS).expr(query.text).query_type("range"))
    )
    return _finished(panel, zero=zero)


def traces(
    title: str,
    traceql: str,
    about: str,
    *,
    spans: bool = False,
    zero: str | None = None,
    width: int = 24,
    height: int = 9,
) -> table_panel.Panel:
    """Traces that a TraceQL query finds, or a row for each span of them; each leads to itself."""
    target = tempo.Dataquery().ref_id("A").datasource(TRACES).query_type("traceql").query(traceql).limit(50).spss(10)
    target = target.table_type(tempo_models.SearchTableType.SPANS if spans else tempo_models.SearchTableType.TRACES)
    panel = _laid_out(table_panel.Panel(), title, about, width, height, TRACES).unit("short").with_target(target)
    return _finished(panel, zero=zero)


def each(attribute: str) -> str:
    """Return a legend, or a part of one, that names each series by its value of this attribute."""
    return f"{{{{{label_name(attribute)}}}}}"


def words(title: str, markdown: str, *, width: int = 24, height: int = 4) -> text_panel.Panel:
    return (
        text_panel.Panel().title(title).span(width).height(height).mode(text_models.TextMode.MARKDOWN).content(markdown)
    )


def _laid_out(
    panel: AnyPanel,
    title: str,
    about: str,
    width: int,
    height: int,
    source: common_models.DataSourceRef = METRICS,
) -> AnyPanel:
    return panel.title(title).description(about).datasource(source).span(width).height(height)


def _target(query: Query, number: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(_letter(number)).datasource(METRICS).expr(query.expression)
    target = target.instant() if query.instant else target.range()
    if query.legend:
        target = target.legend_format(query.legend)
    if query.exemplars:
        target = target.exemplar(True)
    return target


def _names_in(legend: str) -> Iterable[str]:
    """Return what series with this legend may be called, as far as the registry knows."""
    if legend.startswith("{{"):
        return values_of(legend.strip("{} "))
    return [legend]


def _letter(number: int) -> str:
    return chr(ord("A") + number)


def _thresholds(steps: Steps) -> dashboard_builders.ThresholdsConfig:
    return (
        dashboard_builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _finished(panel: AnyPanel, *, zero: str | None, decimals: int | None = None) -> AnyPanel:
    """Say what an empty panel means, where that is normal; `noValue` is where proofs look for it as well."""
    if zero is not None:
        panel = panel.no_value(zero)
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel
