"""Every line of the table of local calls, with its goal: python -m benchmarks.local [--quick | --long] [--only NAME …].

Runs the benchmarks of local calls one after the other, each in a process of its own, and prints one table of what they
found. Runs are short, some fifteen minutes in all, so that it can be repeated anywhere: `--long` takes the time that
docs/performance.md has, with a soak of ten minutes, and `--quick` is to see that everything runs. The lines of peers
need what `make peers` installs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, note, noted, table
from benchmarks.peer_rows import environment
from benchmarks.worker import PYTHON


@dataclass(frozen=True)
class Run:
    """A benchmark, with what it is given in a run that is quick, in one that is short, and in one that is long."""

    module: str
    quick: tuple[str, ...] = ("--quick",)
    short: tuple[str, ...] = ()
    long: tuple[str, ...] = ()


RUNS = (
    Run("pool", short=("--rounds", "9")),
    Run("instructions", quick=("--only", "worker")),
    Run("hand_over", short=("--quick",)),
    Run("overload", short=("--seconds", "8", "--runs", "3"), long=("--runs", "5")),
    Run("kill_storm", long=("--kills", "100")),
    Run("memory", quick=()),
    Run("worker"),
    Run("soak", short=("--minutes", "2")),
    Run("peers", quick=("--rounds", "2"), short=("--rounds", "5")),
)
# Rows of benchmarks.peers, by line.
RAY = {
    "ray async": "Ray actor, async method, awaited",
    "ray sync": "Ray actor, plain method, awaited",
    "ray async get": "Ray actor, async method, `ray.get`",
    "ray sync get": "Ray actor, plain method, `ray.get`",
}


def of_peers(file: Path) -> list[Figure]:
    """Return the figures that benchmarks.peers has written, where it could measure Ray."""
    rows = json.loads(file.read_text())["rows"]
    times = {row["row"]: row["execute_times"] for row in rows if row["work"] == "echo"}
    return [Figure(line, *3 * (times[row],)) for line, row in RAY.items() if row in times]


def run_peers(arguments: Sequence[str], directory: Path, figures: Path) -> bool:
    try:
        environment.python(environment.default_folder())
    except environment.NotMeasured as reason:
        print(f"    not measured, {reason}")
        return True
    file = directory / "peers.json"
    done = subprocess.run([*PYTHON, "benchmarks.peers", "--only", "ray", "--json", str(file), *arguments], check=False)
    if file.exists():
        note(figures, of_peers(file))
    return done.returncode == 0


def run(module: str, arguments: Sequence[str], directory: Path, figures: Path) -> bool:
    """Run a benchmark, have it add its figures to the file, and return whether all was as it should be."""
    if module == "peers":
        return run_peers(arguments, directory, figures)
    command = [*PYTHON, f"benchmarks.{module}", *arguments, "--figures", str(figures)]
    # 69: nothing could be counted, which the command has said.
    return subprocess.run(command, check=False).returncode in (0, 69)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_const", dest="length", const="quick", default="short")
    length.add_argument("--long", action="store_const", dest="length", const="long")
    parser.add_argument("--only", nargs="+", choices=[one.module for one in RUNS], metavar="NAME", help="these alone")
    parser.add_argument("--figures", type=Path, help="a file to keep the figures in; what it has already is kept, too")
    given = parser.parse_args()
    chosen = [one for one in RUNS if given.only is None or one.module in given.only]
    failed = []
    with tempfile.TemporaryDirectory(prefix="sp-") as directory:
        file = given.figures or Path(directory) / "figures"
        file.touch()
        for one in chosen:
            print(f"{one.module}, {time.strftime('%H:%M:%S')}", flush=True)
            if not run(one.module, getattr(one, given.length), Path(directory), file):
                failed.append(one.module)
        print(*table(noted(file)), sep="\n")
    if failed:
        print(f"failed, or not all was as it should be: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
