"""The registry, by the names that Prometheus has for its entries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from semconv.generate import Registry, attribute_names
from semconv.prometheus_names import label_name, series_name

# Labels that every series of ours has; they are the process's. See docs/collector.md.
ALWAYS = frozenset({"job", "instance", "service_name", "service_namespace", "service_version", "snakepit_role"})

# Labels that Loki finds streams of log records by; they are the process's. It keeps the rest with each record.
STREAM = frozenset({"service_name", "service_namespace", "service_instance_id"})

# Labels of log records that no attribute of the registry becomes.
_FIELDS = frozenset({"event_name", "severity_text", "trace_id", "span_id"})

# The label of the one series that stands for all beyond a metric's limit of series.
OVERFLOW = "otel_metric_overflow"


@dataclass(frozen=True)
class Known:
    """A series that there can be: its labels, and for those with a closed set of values, these."""

    # Its name in the registry, or where it comes from.
    metric: str
    labels: frozenset[str]
    # By label; empty where any value may be.
    values: dict[str, frozenset[str]] = field(default_factory=dict)


@cache
def loaded() -> Registry:
    """Return the registry, which takes long to read."""
    return Registry.load()


@cache
def known() -> dict[str, Known]:
    """Return every series that the registry's metrics become, by its name."""
    registry = loaded()
    found: dict[str, Known] = {}
    for group in registry.metrics:
        series = series_name(group["metric_name"], group["instrument"], group["unit"])
        attributes = attribute_names(group)
        labels = frozenset(map(label_name, attributes)) | ALWAYS | {OVERFLOW}
        values = {
            label_name(name): frozenset(_members(registry, name)) for name in attributes if _members(registry, name)
        }
        if group["instrument"] == "histogram":
            found[f"{series}_bucket"] = Known(group["metric_name"], labels | {"le"}, values)
            found[f"{series}_count"] = found[f"{series}_sum"] = Known(group["metric_name"], labels, values)
        else:
            found[series] = Known(group["metric_name"], labels, values)
    return found


@cache
def labels_of_records() -> frozenset[str]:
    return frozenset(map(label_name, loaded().attributes)) | STREAM | _FIELDS


@cache
def events() -> frozenset[str]:
    return frozenset(group["name"] for group in loaded().events)


@cache
def values_of(label: str) -> frozenset[str]:
    """Return the values that a label can have, or nothing where the registry does not close the set."""
    registry = loaded()
    return frozenset(
        value for name in registry.attributes if label_name(name) == label for value in _members(registry, name)
    )


def _members(registry: Registry, attribute: str) -> Iterable[str]:
    kind = registry.attributes[attribute]["type"]
    return [member["value"] for member in kind["members"]] if isinstance(kind, dict) else []
