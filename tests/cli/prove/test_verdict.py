"""Bookkeeping of the proof of the ledger: each thing that must not be is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit_otel.cli.prove.tally import COUNTERS, Tally
from snakepit_otel.cli.prove.verdict import Verdict, as_json, equation, summed, unreported
from snakepit_otel.sessions import Stats

EXACT = Stats(created=10, deleted=3, pruned_ttl=2, pruned_overflow=1, live=4, reported=3)


def verdict() -> Verdict:
    """A verdict at a quota of five."""
    return Verdict(5)


def test_what_is_well_holds() -> None:
    """An exact ledger, ends before which sessions were served, and counters within their bounds."""
    found = verdict()
    found.on_stats(EXACT)
    found.on_served([("a", 1, 10.0)])
    found.on_ended([("a", 1, 11.0)])
    found.on_served([("a", 2, 12.0)])
    found.on_counted(5, 5, 6, "counter-0")
    found.on_end(EXACT, 4, died=0, outages=0)
    assert (found.holds, found.most_live, found.examples) == (True, 4, [])
    assert as_json(found, EXACT, {"cells": 2})["holds"] is True


def test_nothing_seen_is_no_proof() -> None:
    """A store that never answered has proven nothing."""
    assert not verdict().holds


@pytest.mark.parametrize(
    ("stats", "kind"),
    [
        (EXACT._replace(live=5), "ledger"),
        (EXACT._replace(created=12, live=6), "quota"),
        (EXACT._replace(reported=4), "events"),
    ],
)
def test_a_reading_that_is_wrong_is_found(stats: Stats, kind: str) -> None:
    """An inexact ledger, too many live sessions, more events than ends."""
    found = verdict()
    found.on_stats(stats)
    assert (found.holds, [*found.differences]) == (False, [kind])


@pytest.mark.parametrize("first", ["ended", "served"])
def test_a_session_that_is_served_after_its_end_is_found(first: str) -> None:
    """Whichever of both is reported first; another session of that id is none."""
    found = verdict()
    for what in ("ended", "served") if first == "ended" else ("served", "ended"):
        if what == "ended":
            found.on_ended([("a", 1, 10.0)])
        else:
            found.on_served([("a", 1, 10.5), ("a", 2, 10.5)])
    assert found.differences["served after its end"] == 1


@pytest.mark.parametrize(("value", "kind"), [(4, "lost update"), (5, ""), (6, ""), (7, "double update")])
def test_counters_are_between_what_was_acknowledged_and_what_may_have_been_done(value: int, kind: str) -> None:
    """Five were acknowledged, and six may have been done."""
    found = verdict()
    found.on_counted(value, 5, 6, "counter-0")
    assert "".join(found.differences) == kind


@pytest.mark.parametrize(
    ("stats", "listed", "died", "kind"),
    [
        (EXACT, 3, 1, "ledger"),
        (EXACT._replace(reported=2), 4, 0, "events"),
        (EXACT._replace(reported=2), 4, 1, ""),
        (EXACT._replace(created=20, pruned_ttl=12, reported=3), 4, 1, "events"),
        (EXACT._replace(created=20, pruned_ttl=12, reported=3), 4, 2, ""),
    ],
)
def test_the_end_is_checked_against_a_listing_and_the_dead(stats: Stats, listed: int, died: int, kind: str) -> None:
    """Events are lost only with those who died, and of each no more than the quota."""
    found = verdict()
    found.on_end(stats, listed, died=died, outages=0)
    assert "".join(found.differences) == kind


def test_the_equation_shows_whether_it_holds() -> None:
    """Both sides, and an equals sign or none."""
    assert equation(EXACT) == "10 created − 3 deleted − 2 expired − 1 evicted = 4 live"
    assert "≠ 5 live" in equation(EXACT._replace(live=5))
    assert unreported(EXACT._replace(reported=1)) == 2


def test_a_tally_is_there_for_others_at_once(tmp_path: Path) -> None:
    """What one process counts, another one reads from the file, whatever became of the first."""
    tally = Tally(tmp_path / "tally")
    for _ in range(3):
        tally.begin(1)
    tally.refuse(1)
    tally.acknowledge(1)
    tally.add_operation()
    tally.add_operation(failed=True)
    read = Tally(tmp_path / "tally")
    assert (read.possible[1], read.acknowledged[1], read.operations, read.failures) == (2, 1, 1, 1)
    assert summed([read.possible, read.possible]) == tuple(4 * (place == 1) for place in range(COUNTERS))
