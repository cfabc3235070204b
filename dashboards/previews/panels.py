"""Panels, as far as the dashboards' JSON says how they look."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dashboards.previews.colours import Steps, Theme
from dashboards.previews.units import written

_NOT_SEEN = {"links", "custom.hideFrom", "custom.width", "custom.align", "custom.filterable"}
"""What an override may say that a picture does not show."""


@dataclass(frozen=True)
class Look:
    """How one series, or one column, is shown."""

    name: str
    unit: str
    decimals: int | None
    colour: str | None = None
    """A name of Grafana's, where one is given."""
    custom: Mapping[str, Any] | None = None
    """What else is said of this one alone."""

    def written(self, value: float) -> str:
        """Return a value with its unit."""
        return written(value, self.unit, self.decimals)


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard."""

    plain: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Its id, which results go by."""
        return int(self.plain["id"])

    @property
    def title(self) -> str:
        """What stands above it."""
        return str(self.plain.get("title") or "")

    @property
    def kind(self) -> str:
        """Grafana's name of the visualisation; `traces` for whatever is asked of Tempo."""
        return "traces" if self.source == "tempo" else str(self.plain["type"])

    @property
    def source(self) -> str:
        """Which kind of data source it asks."""
        return str((self.plain.get("datasource") or {}).get("type") or "")

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Column, line, width and height in Grafana's grid of 24 columns."""
        place = self.plain["gridPos"]
        return place["x"], place["y"], place["w"], place["h"]

    @property
    def options(self) -> Mapping[str, Any]:
        """What is said of the visualisation."""
        return self.plain.get("options") or {}

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What is said of all series alike."""
        return (self.plain.get("fieldConfig") or {}).get("defaults") or {}

    @property
    def custom(self) -> Mapping[str, Any]:
        """What is said of all series alike, for this visualisation alone."""
        return self.defaults.get("custom") or {}

    @property
    def transformations(self) -> Sequence[Mapping[str, Any]]:
        """What is done with the results before they are shown."""
        return self.plain.get("transformations") or []

    @property
    def nothing(self) -> str:
        """What is said where there is nothing to show."""
        return str(self.defaults.get("noValue") or "No data")

    @property
    def steps(self) -> Steps:
        """Its thresholds."""
        thresholds = self.defaults.get("thresholds") or {}
        if thresholds.get("mode", "absolute") != "absolute":
            raise ValueError("previews know thresholds of the mode absolute alone")
        return [(step.get("value"), step["color"]) for step in thresholds.get("steps") or []]

    def mapped(self, value: float) -> tuple[str, str | None] | None:
        """Return the word and the colour that stand for a value, if something does."""
        for mapping in self.defaults.get("mappings") or []:
            if mapping["type"] != "value":
                raise ValueError(f"previews know no mappings of the type {mapping['type']!r}")
            if (result := mapping["options"].get(f"{value:g}")) is not None:
                return result.get("text") or f"{value:g}", result.get("color")
        return None

    def look(self, name: str, ref: str = "") -> Look:
        """Return how the series, or column, of this name is shown."""
        unit, decimals = str(self.defaults.get("unit") or "short"), self.defaults.get("decimals")
        colour = self.defaults.get("color") or {}
        made = Look(name, unit, decimals, colour.get("fixedColor") if colour.get("mode") == "fixed" else None)
        for identity, value in self._overrides(name, ref):
            match identity:
                case "color":
                    made = replace(made, colour=value["fixedColor"])
                case "unit":
                    made = replace(made, unit=value)
                case "decimals":
                    made = replace(made, decimals=value)
                case "displayName":
                    made = replace(made, name=value)
                case "custom.lineStyle" | "custom.fillOpacity" | "custom.lineWidth":
                    made = replace(made, custom={**(made.custom or {}), identity.removeprefix("custom."): value})
                case _ if identity not in _NOT_SEEN:
                    raise ValueError(f"previews know no override of {identity!r}")
        return made

    def shade(self, theme: Theme, value: float, look: Look) -> str:
        """Return the colour of a value, where values have colours and series have none."""
        if (mapped := self.mapped(value)) and mapped[1]:
            return theme.colour(mapped[1])
        return theme.colour(look.colour) if look.colour else theme.reached(value, self.steps)

    def _overrides(self, name: str, ref: str) -> Iterator[tuple[str, Any]]:
        for override in (self.plain.get("fieldConfig") or {}).get("overrides") or []:
            matcher, wanted = override["matcher"]["id"], override["matcher"].get("options")
            match matcher:
                case "byName":
                    meant = name == wanted
                case "byRegexp":
                    meant = re.search(wanted.strip("/"), name) is not None
                case "byFrameRefID":
                    meant = ref == wanted
                case _:
                    raise ValueError(f"previews know no overrides that are matched {matcher!r}")
            if meant:
                yield from ((one["id"], one.get("value")) for one in override["properties"])
