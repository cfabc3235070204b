"""The parts of benchmarks/peers.py: its bursts, its callers, its table and the environment of the peers."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.peer_rows import environment
from benchmarks.peer_rows.caller import calling
from benchmarks.peer_rows.environment import NotMeasured
from benchmarks.peer_rows.turns import HELLO, IN_FLIGHT, Counts, concurrent, is_echo, pipelined
from benchmarks.peers import PEERS, Samples, figures, table
from supply_chain.lock import locked
from tests.source import ROOT

ANSWERING = """
import asyncio
from benchmarks.peer_rows.turns import *
print("not for the benchmark")
asyncio.run(take_turns({"a b": pipelined(lambda place: place, lambda call: HELLO, is_echo)}))
"""


def test_peers_are_pinned_and_apart() -> None:
    """Every package of the group has a version with hashes in peers.txt; requirements.lock has not got them all."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["peers"]
    packages, loose = locked(environment.PINNED.read_text())
    names = {package.name for package in packages}
    assert not loose
    assert {re.split(r"[\[>]", requirement)[0] for requirement in group} <= names
    assert not names & {"snakepit-otel", "pytest"}
    assert not {"ray", "dramatiq"} & {package.name for package in locked()[0]}
    assert {environment.version(package) for peer in PEERS for package in peer.packages}


def test_a_blocking_client_keeps_calls_in_flight() -> None:
    """There are 64 calls in flight, of one session each, until the last are awaited; each has its time."""
    in_flight: list[int] = []
    most = 0

    def submit(place: int) -> int:
        nonlocal most
        assert place not in in_flight
        in_flight.append(place)
        most = max(most, len(in_flight))
        return place

    def result(place: int) -> str:
        in_flight.remove(place)
        return HELLO

    took = pipelined(submit, result, is_echo)(300)
    assert (len(took), most, in_flight) == (300, IN_FLIGHT, [])


async def test_an_asyncio_client_keeps_calls_in_flight() -> None:
    """The same by coroutines, whose counters are all one more with each call."""
    counts = [0] * IN_FLIGHT

    async def count(place: int) -> int:
        counts[place] += 1
        return counts[place]

    took = concurrent(count, Counts())(300)
    assert not isinstance(took, list)
    assert len(await took) == sum(counts) == 300


@pytest.mark.parametrize("answer", [1, 3, None])
def test_a_counter_that_lost_a_call_has_no_figures(answer: object) -> None:
    """A number that is not the next ends the measurement."""
    check = Counts()
    check(7, 1)
    with pytest.raises(RuntimeError, match="counter of session 7"):
        check(7, answer)


def test_a_caller_makes_bursts(tmp_path: Path) -> None:
    """A process makes the bursts that it is given; what it prints does not disturb."""
    with calling([sys.executable, "-c", ANSWERING], {"PYTHONPATH": str(ROOT)}, tmp_path / "log") as caller:
        answer = caller.burst("a b", 100)
    assert len(answer.took) == 100
    assert answer.rate > 0


def test_a_peer_that_does_not_start_has_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error that its process printed is in its row, and the rest on standard error."""
    program = "raise RuntimeError('no Redis here')"
    with (
        pytest.raises(NotMeasured, match=r"ended with code 1: RuntimeError: no Redis here"),
        calling([sys.executable, "-c", program], {}, tmp_path / "log"),
    ):
        pytest.fail("it is not ready")
    assert "Traceback" in capsys.readouterr().err


def test_an_environment_of_another_time_is_named(tmp_path: Path) -> None:
    """Nothing runs on other versions than those that are pinned."""
    with pytest.raises(NotMeasured, match="not installed in"):
        environment.python(tmp_path)
    (tmp_path / "peers.txt").write_text("ray==1.0")
    with pytest.raises(NotMeasured, match="--install makes it anew"):
        environment.python(tmp_path)


def test_the_table_has_ratios_and_reasons() -> None:
    """A row has the medians of its turns; one without figures says why."""
    samples = Samples([500.0, 600.0, 700.0], [0.5, 0.4, 0.6], [2.0, 20.0, 30.0], [0.02] * 10, [0.01] * 10)
    row = figures(("ray", "Ray", "echo"), samples)
    assert (row.calls_per_second, row.of_bare_grpc, row.execute_times) == (600.0, 0.5, 20.0)
    lines = list(table([row], {"Celery": "not | installed"}, "echo"))
    assert re.sub(" +", " ", lines[2]) == "| Ray | 50 % | 20 × | 2.0 × | 2.0 × |"
    assert re.sub(" +", " ", lines[3]) == "| Celery | not measured: not installed | | | |"
    assert len(list(table([row], {}, "count"))) == 2
