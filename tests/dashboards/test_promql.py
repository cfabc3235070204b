"""The forms of PromQL give what they say."""

from __future__ import annotations

import pytest

from dashboards.promql import (
    ABSENT,
    BY_POOL,
    BY_TOOL,
    PANELS,
    PRESENT,
    RULES,
    SERVICE,
    Matcher,
    Scope,
    none_of,
    occurrences_of,
    one_of,
    share,
)
from snakepit_otel.telemetry import names as n

ALL = Scope({})
OF_WEB = Scope({"service_name": Matcher("=", "web")}, ("service_name",))
EXITS = "snakepit_worker_exits_total"
NEW_EXITS = f"(last_over_time({EXITS}[10m]) unless last_over_time({EXITS}[1h] offset 10m))"
REQUESTS = "snakepit_request_duration_seconds"
STORE = "snakepit_session_store"
ENDED_RATE = 'rate(snakepit_session_ended_total{service_name="web"}[5m])'
BY_TOOLS = "sum by (snakepit_tool_name)"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (ALL.series(n.METRIC_SESSION_COUNT), "snakepit_session_count"),
        (OF_WEB.series(n.METRIC_SESSION_COUNT), 'snakepit_session_count{service_name="web"}'),
        (ALL.series(n.METRIC_REQUEST_DURATION, "_sum"), f"{REQUESTS}_sum"),
        (ALL.total(n.METRIC_POOL_QUEUE_LENGTH), "sum(snakepit_pool_queue_length)"),
        (ALL.total(n.METRIC_SESSION_COUNT), f"sum(max by ({STORE}) (snakepit_session_count))"),
        (
            OF_WEB.rate(n.METRIC_SESSION_ENDED, window="5m"),
            f"sum by (service_name) (max by (service_name, snakepit_session_end_reason, {STORE}) ({ENDED_RATE}))",
        ),
        (ALL.per_store(n.METRIC_SESSION_UNREPORTED), f"min by ({STORE}) (snakepit_session_unreported)"),
        (
            ALL.per_store(n.METRIC_SESSION_COUNT, offset="3h"),
            f"max by ({STORE}) (snakepit_session_count offset 3h)",
        ),
        (
            OF_WEB.total(n.METRIC_POOL_WORKER_COUNT, [n.SNAKEPIT_WORKER_STATE]),
            'sum by (service_name, snakepit_worker_state) (snakepit_pool_worker_count{service_name="web"})',
        ),
        (ALL.rate(n.METRIC_WORKER_EXITS), f"sum(rate({EXITS}[$__rate_interval]))"),
        (ALL.rate(n.METRIC_REQUEST_DURATION, window="5m"), f"sum(rate({REQUESTS}_count[5m]))"),
        (ALL.rate_of_sum(n.METRIC_REQUEST_DURATION, window="5m"), f"sum(rate({REQUESTS}_sum[5m]))"),
        (
            ALL.buckets(n.METRIC_REQUEST_DURATION, [n.SNAKEPIT_TOOL_NAME], window="5m"),
            f"sum by (le, snakepit_tool_name) (rate({REQUESTS}_bucket[5m]))",
        ),
        (
            ALL.quantile(0.95, n.METRIC_REQUEST_DURATION, window="5m"),
            f"histogram_quantile(0.95, sum by (le) (rate({REQUESTS}_bucket[5m])))",
        ),
        (
            ALL.mean(n.METRIC_REQUEST_DURATION, iter([n.SNAKEPIT_TOOL_NAME]), window="5m"),
            f"{BY_TOOLS} (rate({REQUESTS}_sum[5m])) / ({BY_TOOLS} (rate({REQUESTS}_count[5m])) > 0)",
        ),
        (
            ALL.occurrences(n.METRIC_WORKER_EXITS, [n.SNAKEPIT_POOL_NAME], window="10m"),
            f"sum by (snakepit_pool_name) ({NEW_EXITS} or round(increase({EXITS}[10m])))",
        ),
        (
            ALL.occurrences(n.METRIC_REQUEST_DURATION, window="10m"),
            f"sum({occurrences_of(f'{REQUESTS}_count', '10m')})",
        ),
        (share("a", "b"), "((a) or (b) * 0) / ((b) > 0)"),
    ],
)
def test_forms(made: str, expected: str) -> None:
    """Names and units are those of Prometheus, histograms are counted by their `_count`, and groups come in order."""
    assert made == expected


@pytest.mark.parametrize(
    ("matcher", "written"),
    [
        ("crash", 'snakepit_worker_exit_reason="crash"'),
        (PRESENT, 'snakepit_worker_exit_reason!=""'),
        (ABSENT, 'snakepit_worker_exit_reason=""'),
        (one_of(["crash", "stop"]), 'snakepit_worker_exit_reason=~"crash|stop"'),
        (none_of(["crash", "stop"]), 'snakepit_worker_exit_reason!~"crash|stop"'),
    ],
)
def test_attributes_are_matched_by_their_labels(matcher: Matcher | str, written: str) -> None:
    """Text means equality; anything else is said."""
    assert ALL.series(n.METRIC_WORKER_EXITS, where={n.SNAKEPIT_WORKER_EXIT_REASON: matcher}) == f"{EXITS}{{{written}}}"


def test_what_is_asked_of_one_query_stands_before_what_is_asked_of_all() -> None:
    """A scope's matcher gives way to the query's own one of the same label."""
    scope = Scope({"snakepit_pool_name": Matcher("=~", "$pool")})
    found = scope.series(n.METRIC_WORKER_EXITS, where={n.SNAKEPIT_POOL_NAME: "cpu"})
    assert found == f'{EXITS}{{snakepit_pool_name="cpu"}}'


@pytest.mark.parametrize("form", ["total", "rate", "occurrences", "quantile", "mean"])
def test_an_attribute_that_the_metric_lacks_is_refused(form: str) -> None:
    """The query would find nothing, or all, so it is an error, which names both."""
    metric = n.METRIC_SESSION_LIFETIME
    before = (0.5,) if form == "quantile" else ()
    with pytest.raises(ValueError, match=r"snakepit\.session\.lifetime has no attribute snakepit\.tool\.name"):
        getattr(ALL, form)(*before, metric, where={n.SNAKEPIT_TOOL_NAME: "predict"})


@pytest.mark.parametrize("label", [*SERVICE, "instance", "snakepit_role", "le"])
def test_every_series_has_the_process_labels(label: str) -> None:
    """They may be matched of any metric, although the registry does not list them with it."""
    assert f'{label}="x"' in ALL.series(n.METRIC_SESSION_LIFETIME, "_bucket", {label: "x"})


def test_a_choice_of_pools_or_tools_applies_where_there_are_any() -> None:
    """A metric without pools is shown whole, not as nothing."""
    chosen = PANELS.also(**BY_POOL, **BY_TOOL)
    assert "$pool" not in chosen.series(n.METRIC_SESSION_COUNT)
    assert "$tool" not in chosen.series(n.METRIC_SESSION_COUNT)
    both = chosen.series(n.METRIC_POOL_DISPATCH_DURATION, "_count")
    assert 'snakepit_pool_name=~"$pool"' in both
    assert 'snakepit_tool_name=~"$tool"' in both


def test_panels_look_at_what_is_chosen_and_rules_at_each_service() -> None:
    """Panels have a matcher for each variable and no groups of their own; rules the other way round."""
    assert PANELS.total(n.METRIC_ZERO_COPY_HELD_COUNT) == (
        "sum(snakepit_zero_copy_held_count"
        '{service_namespace=~"$service_namespace",service_name=~"$service_name",instance=~"$instance"})'
    )
    expected = "sum by (service_namespace, service_name) (snakepit_zero_copy_held_count)"
    assert RULES.total(n.METRIC_ZERO_COPY_HELD_COUNT) == expected


def test_a_narrower_scope_leaves_the_wider_one_as_it_is() -> None:
    """Pages narrow the scope that they share."""
    narrow = RULES.also(service_name=Matcher("=", "web"))
    assert (narrow.by, RULES.matchers) == (RULES.by, {})
    assert narrow.total(n.METRIC_ZERO_COPY_HELD_COUNT).endswith('(snakepit_zero_copy_held_count{service_name="web"})')
