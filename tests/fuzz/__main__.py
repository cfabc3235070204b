"""Fuzzes all targets, or those named, and reports: `python -m tests.fuzz --seconds 600 [TARGET …]`."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.kit import SEEDS, TARGETS, Target
from tests.fuzz.targets import register_all

WORK = Path(__file__).parents[2] / ".fuzz"
_FOUND = ("crash-", "timeout-", "oom-", "slow-unit-")
_LINES = 60
_BESIDES = 300
"""Seconds that a target may take beyond its time: to import, and to end what hangs."""


@dataclass(frozen=True)
class Result:
    """What has come of a target."""

    target: Target
    runs: int
    coverage: int
    """Edges in this package that its inputs have reached; 0 without atheris."""
    seconds: float
    findings: tuple[Path, ...]
    ended_well: bool
    output: str

    @property
    def right(self) -> bool:
        """Whether nothing was found, and it ran to its end."""
        return self.ended_well and not self.findings


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, and return 1 if anything was found."""
    register_all()
    given = _arguments().parse_args(arguments)
    unknown = set(given.targets) - TARGETS.keys()
    if unknown:
        sys.stderr.write(f"no target {', '.join(sorted(unknown))}; there are {', '.join(sorted(TARGETS))}\n")
        return 2
    targets = [TARGETS[name] for name in given.targets or sorted(TARGETS)]
    share = given.seconds * given.jobs / len(targets)
    limit = (
        f"{share:.0f} s each" if given.runs is None else f"{given.runs:,} runs each from seed 1, {share:.0f} s at most"
    )
    guided = "guided by coverage" if find_spec("atheris") else "blind, as atheris is not installed"
    print(f"{len(targets)} targets, {limit}, {guided}", flush=True)
    right = True
    for result in _run(targets, share, given):
        right = right and result.right
        _report(result)
    return 0 if right else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, unless some are named")
    parser.add_argument("--seconds", type=float, default=600, help="in all; shared by the targets")
    parser.add_argument(
        "--runs", type=int, help="of each target, at most, from a fixed seed: the same inputs every time"
    )
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--work", type=Path, default=WORK, help="where what is found, and the corpus, is kept")
    return parser


def _run(targets: list[Target], seconds: float, given: argparse.Namespace) -> Iterator[Result]:
    with ThreadPoolExecutor(given.jobs) as pool:
        yield from pool.map(lambda target: run(target, seconds, given.work / target.name, given.runs), targets)


def run(target: Target, seconds: float, directory: Path, runs: int | None = None) -> Result:
    """Fuzz one target in a process of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    before, started = set(_findings(directory)), time.monotonic()
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.engine",
        target.run.__module__,
        target.name,
        str(seconds),
        str(directory),
        *([] if runs is None else [str(runs)]),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=WORK.parent,
            env=os.environ if runs is None else os.environ | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + _BESIDES,
            check=False,
        )
        output, status = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = (late.stdout or b"").decode(errors="replace"), -1
    found = tuple(sorted(set(_findings(directory)) - before))
    return Result(
        target,
        _last(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)\t", output),
        _last(r"\bcov: (\d+)", output),
        time.monotonic() - started,
        found,
        status == 0,
        output,
    )


def _findings(directory: Path) -> Iterator[Path]:
    return (path for path in directory.iterdir() if path.name.startswith(_FOUND))


def _last(pattern: str, output: str) -> int:
    found = re.findall(pattern, output, re.MULTILINE)
    if not found:
        return 0
    return int(found[-1] if isinstance(found[-1], str) else next(filter(None, found[-1])))


def _report(result: Result) -> None:
    about = f"{result.target.name:20} {result.runs:>10,} runs {result.coverage:>7,} edges {result.seconds:>6.0f} s"
    print(f"{about}  {'well' if result.right else 'WRONG'}", flush=True)
    if result.right:
        return
    lines = [
        line for line in result.output.splitlines() if not line.startswith(("#", "INFO:", "WARNING:", "Dictionary:"))
    ]
    print("\n".join(f"    {line[:300]}" for line in lines[-_LINES:]))
    for path in result.findings:
        print(f"  reproducer: {path}")
        print(f"  replay:     python -m tests.fuzz.replay {result.target.name} {path}")
        print(f"  keep it:    cp {path} {SEEDS / result.target.name / 'NAME'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
