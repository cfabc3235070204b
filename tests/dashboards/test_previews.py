"""Previews of the dashboards: every kind of panel, drawn from results made up here."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from PIL import Image

from dashboards import colours, house
from dashboards.build import as_plain
from dashboards.house import Query
from dashboards.logql import RECORDS
from dashboards.page import Page, Row
from dashboards.previews import __main__ as command
from dashboards.previews.canvas import Canvas
from dashboards.previews.colours import DARK, LIGHT, Theme
from dashboards.previews.panels import Panel
from dashboards.previews.pictures import DRAWERS, NOTE, WIDTH, picture
from dashboards.previews.results import legend, read
from dashboards.previews.tables import arranged
from dashboards.previews.units import along_an_axis, written

START, STEP, COUNT = 1_764_000_000.0, 5.0, 121
BOUNDS = ("0.01", "0.1", "1", "+Inf")


def panels() -> dict[str, Builder[models.Panel]]:
    """Make one panel of each kind, anew: a page tells its panels where they are."""
    up = Query("up", "{{pool}}")
    says = [(0.0, "shut", "green"), (1.0, "on", "red")]
    markdown = "# Heading\n\nThis is **bold**, and [here](https://example.org) is `code`.\n- one"
    return {
        "stat": house.stat("Share", up, "", unit="percentunit", steps=colours.at_least(0.5, 0.9)),
        "timeseries": house.timeseries(
            "Lines", Query("up", "pool {{pool}}", exemplars=True), "", steps=colours.at_least(1)
        ),
        "stacked": house.timeseries("Areas", up, "", unit="bytes", stacked=True),
        "heatmap": house.heatmap("Heat", Query("up", exemplars=True), ""),
        "bargauge": house.bars("Bars", up, ""),
        "table": house.table("Table", [up, up], "", columns=["rate", "mean"], keys=["pool"], width=8),
        "state-timeline": house.states("States", up, "", says=says),
        "logs": house.log_lines("Lines", RECORDS, ""),
        "traces": house.traces("Traces", "{ kind = server }", ""),
        "text": house.words("Words", markdown),
    }


def page_of(*made: Builder[models.Panel]) -> dict[str, Any]:
    """Return a page of these panels, each in a row of its own, as it is built."""
    rows = [Row(f"Row {number}", [panel]) for number, panel in enumerate(made)]
    return as_plain(Page("snakepit-try", "Snakepit / Try", "What do panels look like?", rows))


def answer(target: dict[str, Any], kind: str, pools: int = 3) -> dict[str, Any]:
    """Return what Prometheus might have given for one query."""

    def value(at: int, pool: int) -> str:
        if kind == "heatmap":
            return str((at % 7) * (pool + 1))
        return (
            str(float((at // 30 + pool) % 2)) if kind == "state-timeline" else f"{math.sin(at / 10 + pool) + 1.5:.6f}"
        )

    own: Sequence[dict[str, str]] = [{"pool": f"p{number}"} for number in range(pools)]
    if kind == "heatmap" and pools:
        own = [{"le": bound} for bound in BOUNDS]
    # A gap where nothing was sampled.
    moments = [at for at in range(COUNT) if not 40 < at < 50]
    instant = bool(target.get("instant"))
    result = []
    for pool, labels in enumerate(own):
        samples = [[START + at * STEP, value(at, pool)] for at in moments]
        result.append({"metric": labels, **({"value": samples[-1]} if instant else {"values": samples})})
    return {
        "refId": target["refId"],
        "legend": target.get("legendFormat", ""),
        "resultType": "vector" if instant else "matrix",
        "result": result,
        "exemplars": [{"labels": {}, "value": "0.7", "timestamp": START + 60}] if target.get("exemplar") else [],
    }


def results_of(dashboard: dict[str, Any], folder: Path, pools: int = 3) -> Path:
    """Write made-up results for each panel of a page, as the proof keeps real ones; return their file."""
    found, lines = {}, {}
    for panel in map(Panel, dashboard["panels"]):
        if panel.source == "prometheus":
            found[str(panel.number)] = [answer(target, panel.kind, pools) for target in panel.plain["targets"]]
        elif panel.source == "loki":
            lines[str(panel.number)] = [
                {"time": START + at, "line": f"line {at} said 5 $ and 日本 " + "on and on " * at, "labels": {}}
                for at in range(40)
            ]
    path = folder / f"{dashboard['uid']}.json"
    end = START + (COUNT - 1) * STEP
    kept = {"uid": dashboard["uid"], "title": "Try", "start": START, "end": end, "step": STEP}
    path.write_text(json.dumps({**kept, "panels": found, "lines": lines}))
    return path


def drawn(folder: Path, *made: Builder[models.Panel], theme: Theme = DARK, pools: int = 3) -> Canvas:
    """Return a picture of these panels."""
    dashboard = page_of(*made)
    return picture(dashboard, read(results_of(dashboard, folder, pools)), theme)


@pytest.mark.parametrize("kind", panels())
@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_every_kind_of_panel_is_drawn(kind: str, theme: Theme, tmp_path: Path) -> None:
    """Each kind of panel becomes a part of a PNG of the page's width, without a warning."""
    with Image.open(io.BytesIO(drawn(tmp_path, panels()[kind], theme=theme).png())) as png:
        assert png.format == "PNG"
        assert png.width == WIDTH
        assert not png.info.keys() & {"Software", "Creation Time", "date"}


def test_every_drawer_is_tried() -> None:
    """There is no way of drawing that the panels above do not take."""
    assert panels().keys() - {"stacked"} == DRAWERS.keys()


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    """A picture depends on its input and on nothing else."""
    first = drawn(tmp_path, *panels().values()).png()
    assert drawn(tmp_path, *panels().values()).png() == first


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_a_picture_says_that_it_is_a_preview(theme: Theme, tmp_path: Path) -> None:
    """Each picture says what has drawn it, and that this is not Grafana."""
    assert "not Grafana" in NOTE
    assert NOTE in drawn(tmp_path, panels()["stat"], theme=theme).words


def test_an_unknown_kind_of_panel_is_refused_by_name(tmp_path: Path) -> None:
    """A panel that cannot be drawn is an error that says which one it is, and not a hole in the picture."""
    dashboard = page_of(panels()["stat"])
    results = read(results_of(dashboard, tmp_path))
    dashboard["panels"][1]["type"] = "piechart"
    with pytest.raises(ValueError, match=r"snakepit-try, panel 2 'Share': .* 'piechart'"):
        picture(dashboard, results, DARK)


def test_results_without_a_panel_are_refused(tmp_path: Path) -> None:
    """Results of an older dashboard are an error that names the panel which they do not have."""
    dashboard = page_of(panels()["stat"])
    path = results_of(dashboard, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "panels": {}}))
    with pytest.raises(ValueError, match=r"panel 2 'Share': the results do not have it"):
        picture(dashboard, read(path), DARK)


def test_a_panel_beyond_the_grid_is_refused(tmp_path: Path) -> None:
    """Panels of one line that need more than 24 columns are an error."""
    dashboard = page_of(panels()["stat"])
    dashboard["panels"][1]["gridPos"]["x"] = 21
    with pytest.raises(ValueError, match=r"'Share': it ends in column 25"):
        picture(dashboard, read(results_of(dashboard, tmp_path)), DARK)


@pytest.mark.parametrize(("zero", "said"), [(None, "No data"), ("no quota", "no quota")])
@pytest.mark.parametrize("make", [house.stat, house.timeseries, house.bars, house.heatmap])
def test_an_empty_panel_says_what_it_means(make: Any, zero: str | None, said: str, tmp_path: Path) -> None:
    """Where there is nothing to show, the panel's own words for it are shown."""
    assert said in drawn(tmp_path, make("Empty", Query("up"), "", zero=zero), pools=0).words


def test_series_are_called_as_their_legends_say(tmp_path: Path) -> None:
    """The names of labels in a legend are replaced by their values."""
    words = drawn(tmp_path, panels()["timeseries"]).words
    assert [word for word in words if word.startswith("pool ")] == ["pool p0", "pool p1", "pool p2"]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("created", "created"),
        ("{{pool}}", "default"),
        ("{{ pool }}: {{tool}}", "default: echo"),
        ("{{nothing}}", ""),
        ("", 'up{pool="default", tool="echo"}'),
        ("__auto", 'up{pool="default", tool="echo"}'),
    ],
)
def test_legends(template: str, name: str) -> None:
    """A label that there is not says nothing; without a template, a series is called by all of its labels."""
    assert legend(template, {"__name__": "up", "tool": "echo", "pool": "default"}) == name


def test_long_legends_are_cut(tmp_path: Path) -> None:
    """Names take a part of the panel at most, and the rest of them is counted."""
    words = drawn(tmp_path, house.timeseries("Crowd", Query("up", "a long name of {{pool}}"), ""), pools=60).words
    shown = sum(word.startswith("a long name") for word in words)
    assert 0 < shown < 20
    assert f"… and {60 - shown} more" in words


def test_states_are_said_in_words(tmp_path: Path) -> None:
    """What a value is mapped to is said in the place of the value."""
    panel = house.states("States", Query("up", "{{pool}}"), "", says=[(0, "shut", "green"), (1, "open", "red")])
    dashboard = page_of(panel)
    dashboard["panels"][1]["options"]["showValue"] = "auto"
    words = picture(dashboard, read(results_of(dashboard, tmp_path)), DARK).words
    assert {"shut", "open"} <= set(words)


def test_tables_join_their_queries(tmp_path: Path) -> None:
    """A table has a row for each set of labels, most first, and its columns in the order and by the names it gives."""
    dashboard = page_of(panels()["table"])
    panel = Panel(dashboard["panels"][1])
    columns, rows = arranged(panel, read(results_of(dashboard, tmp_path)).panels[panel.number])
    assert columns == ["pool", "rate", "mean"]
    assert [row["pool"] for row in rows] == ["p2", "p1", "p0"]
    assert [row["rate"] for row in rows] == sorted((row["rate"] for row in rows), reverse=True)
    assert all(isinstance(row["mean"], float) for row in rows)


def test_log_lines_are_the_newest_first(tmp_path: Path) -> None:
    """Log lines stand as Grafana sorts them; what the font cannot write is marked, and no warning."""
    lines = [word for word in drawn(tmp_path, panels()["logs"]).words if word.startswith("line ")]
    assert lines[0].startswith("line 39 said 5 $ and \N{REPLACEMENT CHARACTER}")
    assert lines[1].startswith("line 38 ")


def test_traces_are_not_made_up(tmp_path: Path) -> None:
    """A panel of traces says that it is not drawn from data."""
    words = drawn(tmp_path, panels()["traces"]).words
    assert "Traces: needs Tempo. Not drawn from data." in words
    assert "{ kind = server }" in words


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 s"),
        (0.00000025, "s", "250 ns"),
        (0.0000456, "s", "45.6 µs"),
        (0.00123, "s", "1.23 ms"),
        (1.5, "s", "1.50 s"),
        (60, "s", "1 min"),
        (5400, "s", "1.50 hours"),
        (-0.25, "s", "-250 ms"),
        (1536, "bytes", "1.50 KiB"),
        (1500, "decbytes", "1.50 kB"),
        (3 * 1024**3, "bytes", "3 GiB"),
        (0.853, "percentunit", "85.3%"),
        (85.3, "percent", "85.3%"),
        (12.5, "ops", "12.5 ops/s"),
        (12345, "reqps", "12.3K req/s"),
        (999, "short", "999"),
        (1234567, "short", "1.23 Mil"),
        (1234567, "none", "1234567"),
        (0.0, "short", "0"),
        (math.nan, "s", "NaN"),
        (math.inf, "short", "∞"),
        (-math.inf, "bytes", "-∞"),
    ],
)
def test_numbers_are_written_with_their_units(value: float, unit: str, text: str) -> None:
    """Numbers are written as Grafana writes them: scaled, with three digits that count."""
    assert written(value, unit) == text


def test_decimals_are_what_a_panel_says() -> None:
    """A panel's own number of decimals is kept to."""
    assert written(0.99951, "percentunit", 2) == "99.95%"
    assert written(3, "short", 1) == "3.0"


def test_ticks_tell_one_from_the_other() -> None:
    """No two ticks of an axis have one label, and none has more decimals than are needed."""
    assert along_an_axis([0, 0.25, 0.5], "short") == ["0", "0.25", "0.5"]
    assert along_an_axis([0, 0.5, 1], "percentunit") == ["0%", "50%", "100%"]


def test_an_unknown_unit_is_refused_by_the_panel(tmp_path: Path) -> None:
    """A unit that cannot be written is an error that names the unit and the panel."""
    with pytest.raises(ValueError, match=r"panel 2 'Odd': .* 'furlongs'"):
        drawn(tmp_path, house.stat("Odd", Query("up"), "", unit="furlongs"))


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_every_colour_that_has_a_meaning_is_known(theme: Theme) -> None:
    """Both themes have each colour that the house gives a meaning."""
    for name in {*colours.MEANINGS.values(), colours.GOOD, colours.NOTE, colours.WARN, colours.BAD, colours.PLAIN}:
        assert theme.colour(name).startswith("#")
    with pytest.raises(ValueError, match="no colour 'beige'"):
        theme.colour("beige")


def test_thresholds_decide_the_colour() -> None:
    """A value has the colour of the highest threshold that it has reached."""
    steps = colours.at_least(0.8, 1)
    assert DARK.reached(0.79, steps) == DARK.colour(colours.GOOD)
    assert DARK.reached(0.8, steps) == DARK.colour(colours.WARN)
    assert DARK.reached(2, steps) == DARK.colour(colours.BAD)


def test_the_command_draws_each_page_in_both_themes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes two pictures for each page, and fails, without writing, where a page has no results."""
    dashboard = page_of(panels()["stat"])
    built = tmp_path / "built"
    built.mkdir()
    (built / "snakepit-try.json").write_text(json.dumps(dashboard))
    monkeypatch.setattr(command, "GRAFANA", built)
    pictures = tmp_path / "pictures"
    assert command.main([str(tmp_path), str(pictures)]) == 1
    assert "snakepit-try.json is missing" in capsys.readouterr().err
    results_of(dashboard, tmp_path)
    assert command.main([str(tmp_path), str(pictures)]) == 0
    assert {path.name for path in pictures.iterdir()} == {"try-dark.png", "try-light.png"}
