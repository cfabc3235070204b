"""Colours: those of Grafana's two themes, and the names that dashboards give them by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SHADES = ("super-light-", "light-", "", "semi-dark-", "dark-")
_DARK = {
    "red": ("#ffa6b0", "#ff7383", "#f2495c", "#e02f44", "#c4162a"),
    "orange": ("#ffcb7d", "#ffb357", "#ff9830", "#ff780a", "#fa6400"),
    "yellow": ("#fff899", "#ffee52", "#fade2a", "#f2cc0c", "#e0b400"),
    "green": ("#c8f2c2", "#96d98d", "#73bf69", "#56a64b", "#37872d"),
    "blue": ("#c0d8ff", "#8ab8ff", "#5794f2", "#3274d9", "#1f60c4"),
    "purple": ("#deb6f2", "#ca95e5", "#b877d9", "#a352cc", "#8f3bb8"),
}
_LIGHT = {
    "red": ("#ff7383", "#f2495c", "#e02f44", "#c4162a", "#ad0317"),
    "orange": ("#ffb357", "#ff9830", "#ff780a", "#fa6400", "#e55400"),
    "yellow": ("#ffee52", "#fade2a", "#f2cc0c", "#e0b400", "#cc9d00"),
    "green": ("#96d98d", "#73bf69", "#56a64b", "#37872d", "#19730e"),
    "blue": ("#8ab8ff", "#5794f2", "#3274d9", "#1f60c4", "#1250b0"),
    "purple": ("#ca95e5", "#b877d9", "#a352cc", "#8f3bb8", "#7c2ea3"),
}
_IN_TURN = (
    "green",
    "semi-dark-yellow",
    "light-blue",
    "semi-dark-orange",
    "red",
    "blue",
    "purple",
    "#705da0",
    "dark-green",
    "yellow",
    "#447ebc",
    "#c15c17",
    "#890f02",
    "#0a437c",
    "#6d1f62",
    "#584477",
)
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_RGB = re.compile(r"rgba?\((\d+), *(\d+), *(\d+)(?:, *[\d.]+)?\)")

Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from which value on which colour; the first has no value."""


@dataclass(frozen=True)
class Theme:
    """What everything is drawn in."""

    name: str
    ground: str
    panel: str
    border: str
    text: str
    faint: str
    heat: str
    """matplotlib's colour map for heat maps: what is rare is near the ground."""
    hues: Mapping[str, tuple[str, ...]]

    def colour(self, name: str) -> str:
        """Return the colour that Grafana means by this name.

        Raises `ValueError` for a name that is not one of Grafana's.
        """
        if _HEX.fullmatch(name):
            return name
        if matched := _RGB.fullmatch(name):
            return "#" + "".join(f"{int(part):02x}" for part in matched.groups())
        if name == "text":
            return self.text
        if name == "transparent":
            return self.panel
        for hue, shades in self.hues.items():
            if name.endswith(hue) and (shade := name.removesuffix(hue)) in _SHADES:
                return shades[_SHADES.index(shade)]
        raise ValueError(f"Grafana has no colour {name!r}")

    def in_turn(self, number: int) -> str:
        """Return the colour of the series with this number, where nothing else gives it one."""
        return self.colour(_IN_TURN[number % len(_IN_TURN)])

    def reached(self, value: float, steps: Steps) -> str:
        """Return the colour of the highest threshold that a value has reached."""
        name = "green"
        for least, colour in steps:
            if least is None or value >= least:
                name = colour
        return self.colour(name)


DARK = Theme("dark", "#111217", "#181b1f", "#2e3138", "#ccccdc", "#8e8e9a", "Oranges_r", _DARK)
LIGHT = Theme("light", "#f4f5f5", "#ffffff", "#dadce0", "#24292e", "#6a6f76", "Oranges", _LIGHT)
