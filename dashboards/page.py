"""A page: one dashboard, which answers one question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.house import METRICS, LogLines
from dashboards.logql import LogQuery
from dashboards.promql import PANELS, RATE, SERVICE, Scope, one_of
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n

# What all pages have, and links between them go by.
TAG = "snakepit"

CRASHES = "Worker crashes"
ACCUMULATION = "Sessions accumulate"


@dataclass(frozen=True)
class Row:
    """A heading, and the panels under it from left to right; 24 columns are one line."""

    title: str
    panels: Sequence[Builder[models.Panel]]


@dataclass(frozen=True)
class Page:
    # Fixed for ever: links, alerts and bookmarks go by it.
    uid: str
    title: str
    # What it answers; its description.
    question: str
    rows: Sequence[Row]
    # Whether pools can be chosen; queries of the page then have `BY_POOL` in their scope.
    pool: bool = False
    # Whether tools can be chosen, as for pools.
    tool: bool = False
    traces: bool = False
    logs: bool = False
    instance: bool = True
    own_variables: Sequence[Builder[models.VariableModel]] = field(default=())
    since: str = "now-1h"

    def log_queries(self) -> Iterator[LogQuery]:
        return (panel.query for row in self.rows for panel in row.panels if isinstance(panel, LogLines))

    def build(self) -> models.Dashboard:
        made = (
            builders.Dashboard(self.title)
            .uid(self.uid)
            .description(self.question)
            .tags([TAG, "opentelemetry"])
            .editable()
            .time(self.since, "now")
            .refresh("30s")
            .timezone("browser")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .variables(self._variables())
            .link(
                builders.DashboardLink("Snakepit")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .include_vars(True)
                .keep_time(True)
            )
        )
        for annotation in self._annotations():
            made = made.annotation(annotation)
        for row in self.rows:
            made = made.with_row(builders.Row(row.title))
            for panel in row.panels:
                made = made.with_panel(panel)
        dashboard = made.build()
        for link in dashboard.links or []:
            # In sight, and not in the menu where the SDK puts it.
            link.placement = ""
        # Links to one panel go by its number.
        for number, one in enumerate(dashboard.panels or [], 1):
            one.id_val = number
        return dashboard

    def _variables(self) -> list[Builder[models.VariableModel]]:
        variables: list[Builder[models.VariableModel]] = [_source("datasource", "Data source", "prometheus")]
        if self.traces:
            variables.append(_source("tempo", "Traces", "tempo"))
        if self.logs:
            variables.append(_source("loki", "Logs", "loki"))
        # A series that every process of ours has, from its start to its end; others' have no role, or that of a client.
        everywhere, ours = n.METRIC_PROCESS_MEMORY_USAGE, {n.SNAKEPIT_ROLE: one_of(["authority", "worker"])}
        within = Scope({})
        namespaces = within.series(everywhere, where=ours)
        variables.append(_values("service_namespace", "Namespace", namespaces, "service_namespace"))
        within = within.also(service_namespace=PANELS.matchers["service_namespace"])
        variables.append(_values("service_name", "Service", within.series(everywhere, where=ours), "service_name"))
        within = within.also(service_name=PANELS.matchers["service_name"])
        if self.instance:
            variables.append(_values("instance", "Instance", within.series(everywhere, where=ours), "instance"))
        if self.pool:
            pools = within.series(n.METRIC_POOL_CAPACITY)
            variables.append(_values("pool", "Pool", pools, label_name(n.SNAKEPIT_POOL_NAME)))
        if self.tool:
            tools = within.series(n.METRIC_ADAPTER_REQUEST_DURATION, "_count")
            variables.append(_values("tool", "Tool", tools, label_name(n.SNAKEPIT_TOOL_NAME)))
        return [*variables, *self.own_variables]

    def _annotations(self) -> list[builders.AnnotationQuery]:
        # Only what can be chosen on the page: of a variable that is not there, Grafana leaves the name in the query.
        within = PANELS if self.instance else Scope({label: PANELS.matchers[label] for label in SERVICE})
        crashes = within.occurrences(
            n.METRIC_WORKER_EXITS, [n.SNAKEPIT_POOL_NAME], {n.SNAKEPIT_WORKER_EXIT_REASON: "crash"}, RATE
        )
        warnings = within.occurrences(n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_COUNT, [n.REASON], window=RATE)
        return [
            _annotation(CRASHES, crashes, "red", "pool {{snakepit_pool_name}}"),
            _annotation(ACCUMULATION, warnings, "orange", "{{reason}}"),
        ]


def _source(name: str, label: str, kind: str) -> builders.DatasourceVariable:
    return builders.DatasourceVariable(name).label(label).type(kind)


def _values(name: str, label: str, series: str, of: str) -> builders.QueryVariable:
    """Let one, several or all values of a label be chosen."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(METRICS)
        .query(f"label_values({series}, {of})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Every series has a service and an instance; a namespace need not be set, and the series that stands for those
        # beyond a metric's limit has neither pool nor tool.
        .all_value(".+" if name in ("service_name", "instance") else ".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _annotation(name: str, expression: str, colour: str, text: str) -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(METRICS)
        .enable(True)
        .icon_color(colour)
        .expr(f"{expression} > 0")
        .title_format(name)
        .text_format(text)
    )
