"""Every line of the table of local calls, with its goal: python -m benchmarks.local [--quick | --long] [--only NAME …].

Runs the benchmarks of local calls one after the other, each in a process of its own, and prints one table of what they
found. Runs are short, some fifteen minutes in all, so that it can be repeated anywhere: `--long` takes the time that
docs/performance.md has, with a soak of ten minutes, and `--quick` is to see that everything runs. The lines of peers
need what `make peers` installs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import noted, table
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
    Run(
        "peers",
        quick=("--only", "ray,ours", "--rounds", "2"),
        short=("--only", "ray,ours"),
        long=("--only", "ray,ours"),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_const", dest="length", const="quick", default="short")
    length.add_argument("--long", action="store_const", dest="length", const="long")
    parser.add_argument("--only", nargs="+", choices=[run.module for run in RUNS], metavar="NAME", help="these alone")
    parser.add_argument("--figures", type=Path, help="a file to keep the figures in; what it has already is kept, too")
    given = parser.parse_args()
    chosen = [run for run in RUNS if given.only is None or run.module in given.only]
    failed = []
    with tempfile.TemporaryDirectory(prefix="sp-") as directory:
        file = given.figures or Path(directory) / "figures"
        file.touch()
        for run in chosen:
            print(f"{run.module}, {time.strftime('%H:%M:%S')}", flush=True)
            command = [*PYTHON, f"benchmarks.{run.module}", *getattr(run, given.length), "--figures", str(file)]
            if subprocess.run(command, check=False).returncode:
                failed.append(run.module)
        print(*table(noted(file)), sep="\n")
    if failed:
        print(f"failed, or not all was as it should be: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
