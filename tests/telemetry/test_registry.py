"""Rules that every name keeps."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

from semconv import generate
from snakepit_otel.telemetry import _definitions, names

METRICS = names.METRICS
POINTS = [value for value in vars(names).values() if isinstance(value, _definitions.Point)]
EVENTS = [value for value in vars(names).values() if isinstance(value, _definitions.Event)]

REGISTRY = generate.Registry.load()
ATTRIBUTES: dict[str, Any] = REGISTRY.attributes
GROUPS = [*REGISTRY.spans, *REGISTRY.metrics, *REGISTRY.events, *REGISTRY.entities]
IDS = {name for name, attribute in ATTRIBUTES.items() if generate.ours(attribute).get("id")}

# The guide's own keys and event names; everything else is dotted and in a namespace.
DOCUMENTED_KEYS = {names.REASON, names.STRICT_MODE, names.TABLE_NAME}
# Attributes whose values no list can give, but whose number has the bound that the registry states. Each costs a
# series per value on every metric that carries it, so a new one is a decision: it is made here.
BOUNDED = {
    names.CPYTHON_GC_GENERATION,
    names.ERROR_TYPE,
    names.RPC_METHOD,
    names.RPC_RESPONSE_STATUS_CODE,
    names.SNAKEPIT_MIDDLEWARE_NAME,
    names.SNAKEPIT_POOL_NAME,
    names.SNAKEPIT_SESSION_STORE,
    names.SNAKEPIT_TOOL_NAME,
    names.TABLE_NAME,
}
TYPES = {"string": str, "string[]": list, "int": int, "double": float, "boolean": bool}
STABILITIES = {"stable", "release_candidate", "beta", "alpha", "development"}
UNITS = {"s", "By", "1"}
UNIT_WORDS = {"total", "seconds", "second", "milliseconds", "ms", "bytes", "byte", "percent", "ratio"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics_carry_no_ids(metric: _definitions.Metric) -> None:
    """No metric may carry an attribute whose values grow with use."""
    assert not metric.attributes & IDS


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_that_sound_like_ids_are_marked_as_ids(name: str) -> None:
    """The registry marks ids, so that none is forgotten above; an id has no bound."""
    sounds_like_one = re.search(r"[._](id|pid|message|stacktrace)$", name)
    assert not sounds_like_one or name in IDS
    assert not (name in IDS and "bound" in generate.ours(ATTRIBUTES[name]))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_attribute_of_a_metric_has_a_known_number_of_values(metric: _definitions.Metric) -> None:
    """An attribute of a metric is an enumeration, true or false, or among the few whose bound is stated."""
    for name in metric.attributes:
        kind = ATTRIBUTES[name]["type"]
        assert isinstance(kind, dict) or kind == "boolean" or name in BOUNDED


def test_stated_bounds_are_those_that_were_decided() -> None:
    """The registry states a bound for exactly the attributes that this module allows without an enumeration."""
    assert {name for name, attribute in ATTRIBUTES.items() if generate.ours(attribute).get("bound")} == BOUNDED


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: _definitions.Metric) -> None:
    """Names are lower case and dotted, and have no unit and no `total` in them; units are UCUM's."""
    assert re.fullmatch(r"[a-z]+(\.[a-z_]+)+", metric.name)
    assert not UNIT_WORDS & set(re.split(r"[._]", metric.name))
    assert metric.unit in UNITS or re.fullmatch(r"\{[a-z]+\}", metric.unit)
    assert (metric.boundaries is not None) == (metric.instrument == "histogram")
    assert metric.boundaries is None or list(metric.boundaries) == sorted(set(metric.boundaries))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_names_are_lower_case_and_dotted(name: str) -> None:
    """Attributes are in a namespace, but for the keys that the guide documents."""
    assert name in DOCUMENTED_KEYS or re.fullmatch(r"[a-z]+(\.[a-z_]+)+", name)


def test_metric_names_are_unique() -> None:
    """No two entries share a name."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["id"])
def test_groups_say_what_they_are(group: Any) -> None:
    """Every span, metric, event and entity has its kind in its id, a stability and a sentence of meaning."""
    own_name = group.get("metric_name") or group.get("name")
    assert group["id"].startswith(f"{group['type']}.")
    assert own_name is None or group["id"] == f"{group['type']}.{own_name}"
    assert group["stability"] in STABILITIES
    assert group["brief"].endswith(".")


@pytest.mark.parametrize("attribute", ATTRIBUTES.values(), ids=lambda attribute: attribute["id"])
def test_attributes_say_what_they_are(attribute: Any) -> None:
    """Every attribute has a stability, a sentence of meaning, and its values or examples of them."""
    described = [attribute]
    if isinstance(attribute["type"], dict):
        described += attribute["type"]["members"]
        assert "examples" not in attribute
    else:
        assert attribute["examples"]
        assert {type(example) for example in attribute["examples"]} == {TYPES[attribute["type"]]}
    for each in described:
        assert each["stability"] in STABILITIES
        assert each["brief"].endswith(".")


def test_every_attribute_is_used() -> None:
    """What no span, metric, event or entity refers to is not in the registry."""
    assert ATTRIBUTES.keys() == {name for group in GROUPS for name in generate.attribute_names(group)}


def conventional(namespace: str, kind: str) -> dict[str, str]:
    """Return the names that OpenTelemetry defines in a namespace, each with its description."""
    module = importlib.import_module(f"opentelemetry.semconv._incubating.{kind}.{namespace}_{kind}")
    return dict(re.findall(r'^[A-Z_]+: Final = "(.+)"\n"""\n(.*)', inspect.getsource(module), re.MULTILINE))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("attributes", name) for name in ATTRIBUTES if name not in DOCUMENTED_KEYS]
    + [("metrics", metric.name) for metric in METRICS],
)
def test_names_outside_our_namespace_are_opentelemetrys(kind: str, name: str) -> None:
    """A name that is not ours is spelt as in the conventions that are installed, and not deprecated there."""
    namespace = name.split(".")[0]
    if namespace != "snakepit":
        known = conventional(namespace, kind)
        assert name in known
        assert not re.match("Deprecated(?! in favor of stable)", known[name])


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_measurement_of_an_event_is_a_metric_of_the_same_stem(event: _definitions.Event) -> None:
    """An event's measurements are metrics named for it, and carry its documented attributes."""
    for key, metric in event.measurements.items():
        assert metric.name == f"{event.name}.{key}"
        assert metric.attributes <= event.attributes


def test_durations_are_histograms_in_seconds() -> None:
    """Every lifecycle point has its duration in a histogram of seconds that can tell failures apart."""
    assert POINTS
    for point in POINTS:
        assert (point.duration.instrument, point.duration.unit) == ("histogram", "s")
        assert names.ERROR_TYPE in point.duration.attributes
        assert point.fixed.keys() <= point.duration.attributes
