"""Everything that fuzzing has found stays mended, and fuzzing itself finds what is wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.common.printable import printable
from tests.fuzz import kit, loop, planted  # noqa: F401 - one that is wrong
from tests.fuzz.__main__ import run
from tests.fuzz.choices import Choices
from tests.fuzz.kit import SEEDS, TARGETS, Finding, Target, TooManySteps
from tests.fuzz.targets import register_all, services
from tests.processes import ROOT

register_all()
PLANTED = TARGETS.pop("planted")
"""Registered by its module, and none of those that are run."""


@pytest.fixture(scope="module", autouse=True)
def _stopped() -> Iterator[None]:
    """Stop what targets have started in this process."""
    yield
    services.close()
    loop.close()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds(name: str) -> None:
    """Each input that is kept is decoded or refused, within the steps and the memory that its size explains."""
    seeds = TARGETS[name].seeds()
    assert seeds
    for seed in seeds:
        try:
            TARGETS[name].check_with_memory(seed.read_bytes())
        except BaseException as error:
            raise AssertionError(f"{seed.relative_to(ROOT)} is wrong") from error


def test_seeds_have_targets() -> None:
    """No seed is kept for a target that there is not, or is too large to be one."""
    assert {path.name for path in SEEDS.iterdir()} == TARGETS.keys()
    for target in TARGETS.values():
        assert [seed for seed in target.seeds() if seed.stat().st_size > target.largest] == []


def test_every_method_is_called() -> None:
    """Whole messages go to every method of every service, whichever server has it."""
    served = {method.path for method in (*services.OF_AUTHORITY, *services.OF_WORKER)}
    stubs = (ROOT / "snakepit_otel" / "bridge" / "proto").glob("*_pb2_grpc.py")
    declared = {
        line.strip().strip("',") for stub in stubs for line in stub.read_text().splitlines() if "'/snake" in line
    }
    assert served == declared


def loops(data: bytes) -> None:
    for _ in range(len(data) ** 2):
        len(data)


def forgets(data: bytes) -> None:
    _kept.append([bytearray(data) for _ in range(5_000)])


def logs(data: bytes) -> None:
    logging.getLogger("snakepit_otel.test").info("%s", data.decode())


def escapes(data: bytes) -> None:
    with kit.refusing(ValueError):
        raise ValueError(data.decode())


_kept: list[object] = []


@pytest.mark.parametrize(
    ("wrong", "data", "error"),
    [
        (loops, b"x" * 4_000, TooManySteps),
        (forgets, b"x" * 4_000, Finding),
        (logs, b"a\nforged", Finding),
        (escapes, b"\x1b[2J", Finding),
        (escapes, b"x" * 3_000, Finding),
        (bytes.decode, b"\xff", UnicodeDecodeError),
    ],
    ids=["steps", "memory", "logs", "terminal", "echo", "error"],
)
def test_wrong_targets_are_found(wrong: object, data: bytes, error: type[BaseException]) -> None:
    """What takes too much, logs or echoes what came, or lets an error out, is a finding."""
    target = Target("wrong", wrong, 20, 50_000, 4_096)  # type: ignore[arg-type]
    with pytest.raises(error):
        target.check_with_memory(data)
    _kept.clear()


def test_logged_text_may_be_printable() -> None:
    """What is logged as it has to be is right."""

    def right(data: bytes) -> None:
        logging.getLogger("snakepit_otel.test").info("%s", printable(data.decode()))

    Target("right", right, 20, 50_000, 4_096).check(b"a\nforged")


def test_choices_end() -> None:
    """At the end of the bytes every choice is the first, so that values end, whatever they are."""
    assert Choices(b"").json() is None
    assert Choices(b"\x07" * 2_000).json()
    message = services._message(Choices(b"\xff" * 300), services.OF_AUTHORITY[5])
    assert message.SerializeToString()


def test_a_finding_has_a_reproducer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that fails ends its run with a file that replays, blind as well; one that does not ends in time."""
    monkeypatch.setenv("FUZZ_ENGINE", "blind")
    result = run(PLANTED, 20, tmp_path)
    assert not result.right, result.output
    (found,) = result.findings
    with pytest.raises(LookupError):
        PLANTED.check(found.read_bytes())
    assert result.runs > 0


def test_replaying_says_what_is_wrong() -> None:
    """The command that a report names runs one input."""
    seed = SEEDS / "rosters" / "right"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.replay", "rosters", seed],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing is wrong" in done.stdout
