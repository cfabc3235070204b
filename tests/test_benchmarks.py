"""Benchmarks that hold figures to goals: how they compare, and what they print."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import figures, instructions, local
from benchmarks.figures import LINES, Figure


def test_counts_are_held_within_five_per_cent() -> None:
    """A count fails above, is to be lowered below, is to be added where none is held, and else nothing is said."""
    wrong, to_do = instructions.compare({"a": 105.1, "b": 94.9, "c": 104.9, "d": 1.0}, {"a": 100, "b": 100, "c": 100})
    assert len(wrong) == 1
    assert "a: 105.1 k, +5.1% from the 100.0 k held" in wrong[0]
    assert [line.partition(":")[0] for line in to_do] == ["b", "d"]
    assert "lower it with --write" in to_do[0]


def test_written_counts_leave_others_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other Pythons stay, and those of cases that were not counted."""
    monkeypatch.setattr(instructions, "HELD", tmp_path / "held.json")
    instructions.HELD.write_text(json.dumps({"another": {"a": 1.0}, instructions.here(): {"a": 1.0, "b": 2.0}}))
    instructions.write({"b": 3.04})
    assert instructions.held() == {"another": {"a": 1.0}, instructions.here(): {"a": 1.0, "b": 3.0}}


def test_held_counts_are_of_cases_that_are_counted() -> None:
    """The committed file has exactly the cases that `make instructions` counts, for each Python that it has."""
    names = {case.name for case in instructions.CASES}
    assert all(set(counts) == names for counts in instructions.held().values())


def test_a_line_has_its_median_with_quartiles_its_goal_and_whether_it_is_reached(tmp_path: Path) -> None:
    """Figures go through the file that benchmarks add to; what nothing measured is not passed off as reached."""
    file = tmp_path / "figures"
    figures.note(file, [figures.figure_of("thread", [240.0, 260.0, 250.0, 300.0, 200.0])])
    figures.note(file, [Figure("refused", 7.5, 7.5, 7.5), Figure("soak", math.nan, math.nan, math.nan)])
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in figures.table(figures.noted(file))}
    assert len(lines) == len(LINES) + 2
    assert lines[LINES["thread"].text].endswith("| 250 % (240 to 260) | ≥ 250 % | yes |")
    assert lines[LINES["refused"].text].endswith("| 7.50 ms | ≤ 5.00 ms | no |")
    assert lines[LINES["soak"].text].endswith("| not measured | ≤ 2.00 MiB |  |")


def test_figures_are_noted_nowhere_unless_asked_for() -> None:
    """A benchmark that is run by itself writes no file."""
    figures.note(None, [Figure("refused", 1.0, 1.0, 1.0)])


def test_lines_of_rays_actors_are_of_the_echo(tmp_path: Path) -> None:
    """They are read from the figures of the peers, as far as these have them."""
    rows = [
        {"row": row, "work": work, "execute_times": times}
        for row, work, times in (
            ("Ray actor, async method, awaited", "echo", 4.5),
            ("Ray actor, async method, `ray.get`", "echo", 3.5),
            ("Ray actor, async method, `ray.get`", "count", 1.0),
            ("`Snakepit.execute`", "echo", 1.0),
        )
    ]
    (tmp_path / "peers").write_text(json.dumps({"rows": rows}))
    assert local.of_peers(tmp_path / "peers") == [
        Figure("ray async", 4.5, 4.5, 4.5),
        Figure("ray async get", 3.5, 3.5, 3.5),
    ]


def test_every_benchmark_of_the_table_is_there() -> None:
    """What `benchmarks.local` runs are modules of the folder."""
    folder = Path(local.__file__).parent
    assert [run.module for run in local.RUNS if not (folder / f"{run.module}.py").exists()] == []
