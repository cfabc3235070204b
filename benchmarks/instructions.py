"""Instructions that a request takes, process by process: python -m benchmarks.instructions [--check | --write].

An async echo, counted by valgrind's callgrind in a worker, in the authority, there for the request of a `Client` as
well, and in that `Client`: what is printed does not depend on the machine's mood. All over the local transport, and
the worker over gRPC as well. Two workers of the profile `thread`; 8 requests in flight for a worker, 64 for the others.
With telemetry on, every request is recorded and encoded; sending,
once a second by the clock, is not counted, for under valgrind a second has few requests.

`--check` holds the counts to those of benchmarks/instructions.json, which has them for a version of Python and a kind
of processor: the exit status is 1 if one is more than 5 % above, and 69 if nothing can be counted or compared here.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.callers import SERVED_BY, Caller
from benchmarks.callgrind import Callgrind, is_installed
from benchmarks.figures import Figure, note, option_parser
from benchmarks.load import load_of
from benchmarks.transports import environ_of
from benchmarks.worker import serving, start
from snakepit_otel.bridge.wire.methods import REFERENCES, REQUEST_ID
from snakepit_otel.bridge.wire.tool_calls import execute_request

HELD = Path(__file__).with_suffix(".json")
TOLERANCE = 0.05
NOTHING_HELD = 69
WARM_UP, CALLS, WINDOWS = 600, 200, 5
AN_HOUR = "3600000"

Burst = Callable[[int], object]


@dataclass(frozen=True)
class Case:
    """A process, with telemetry at a level, a kind of server that stands for it, and the share of recorded requests."""

    process: str
    level: str = "off"
    kind: str = "worker"
    sampled: float | None = None
    transport: str = "local"

    @property
    def name(self) -> str:
        share = "" if self.sampled in (None, 1.0) else f", {self.sampled:.0%} recorded"
        over = "" if self.transport == "local" else " over gRPC"
        return f"{self.process}{over}, {'stock SDK' if self.kind == 'stock' else self.level}{share}"

    @property
    def file_name(self) -> str:
        return re.sub(r"\W+", "-", self.name)

    @property
    def environ(self) -> dict[str, str]:
        chosen = {"SNAKEPIT_TELEMETRY_LEVEL": self.level, "PYTHONHASHSEED": "0"}
        return chosen | environ_of(self.transport)


CASES = (
    Case("worker"),
    Case("worker", "full", sampled=1.0),
    Case("worker", transport="grpc"),
    Case("authority"),
    Case("authority", "full"),
    Case("authority of a Client"),
    Case("Client"),
)
MORE = (
    Case("worker", "full", sampled=1.0, transport="grpc"),
    Case("worker", "full", sampled=0.1),
    Case("worker", "essential", sampled=1.0),
    Case("worker", "full", "stock", 1.0),
    Case("worker", "full", "stock", 0.1),
)


@contextmanager
def process(case: Case, directory: Path, counting: Callgrind) -> Iterator[Burst]:
    """Yield what makes so many requests of a process that runs under callgrind."""
    environ = case.environ | exporting(directory)
    if case.process == "worker":
        path = f"{directory}/{case.file_name}.sock"
        server = start(case.kind, path, runner=counting.runner, **environ)
        request = execute_request("echo", {"value": "hello"}, "s")
        if case.transport == "local":
            # As an authority of ours adds it.
            request.metadata.update({REQUEST_ID: "0" * 32, REFERENCES: ""})
        load = load_of(case.transport, path, request, 8, case.sampled)
        try:
            yield load.run
        finally:
            load.close()
            server.kill()
            server.wait()
        return
    if case.process == "authority of a Client":
        caller = Caller("client", directory, environ | {SERVED_BY: json.dumps(counting.runner)})
    else:
        caller = Caller("client" if case.process == "Client" else "thread", directory, environ, counting.runner)
    try:
        yield caller.burst
    finally:
        caller.close()


def exporting(directory: Path) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{directory}/sink.sock",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_BSP_SCHEDULE_DELAY": AN_HOUR,
        "OTEL_METRIC_EXPORT_INTERVAL": AN_HOUR,
    }


def count(case: Case, directory: Path, *, verbose: bool = False) -> float:
    """Return the thousands of instructions that a request takes."""
    counting = Callgrind(directory, case.file_name)
    with process(case, directory, counting) as burst:
        burst(WARM_UP)
        counting.begin()
        burst(CALLS)
        counted = [counting.count(lambda: burst(CALLS)) / CALLS / 1e3 for _ in range(WINDOWS)]
    if verbose:
        print(f"{case.name}: {', '.join(f'{one:.1f}' for one in counted)}", flush=True)
    # The mean: durations are put together by the thousand, which is in one of these.
    return statistics.mean(counted)


def count_all(cases: Sequence[Case], *, verbose: bool = False) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as text,
        serving("sink", f"{text}/sink.sock"),
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        counts = pool.map(lambda case: count(case, Path(text), verbose=verbose), cases)
        return {case.name: value for case, value in zip(cases, counts, strict=True)}


def here() -> str:
    return f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}, {platform.machine()}"


def held() -> dict[str, dict[str, float]]:
    known: dict[str, dict[str, float]] = json.loads(HELD.read_text())
    return known


def write(counted: Mapping[str, float]) -> None:
    known = held()
    known[here()] = known.get(here(), {}) | {name: round(value, 1) for name, value in counted.items()}
    HELD.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def compare(counted: Mapping[str, float], expected: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Return what is wrong, for each count above its limit, and what is to be done, for each far below or not held."""
    wrong, to_do = [], []
    for name, value in counted.items():
        if name not in expected:
            to_do.append(f"{name}: {value:.1f} k, and none is held; add it with --write")
        elif value > expected[name] * (1 + TOLERANCE):
            wrong.append(
                f"{name}: {value:.1f} k, {value / expected[name] - 1:+.1%} from the {expected[name]:.1f} k held"
            )
        elif value < expected[name] * (1 - TOLERANCE):
            share = value / expected[name] - 1
            to_do.append(
                f"{name}: {value:.1f} k, {share:+.1%} from the {expected[name]:.1f} k held; lower it with --write"
            )
    return wrong, to_do


def report(counted: Mapping[str, float]) -> None:
    expected = held().get(here(), {})
    print(f"thousands of instructions for an echo request, means of {WINDOWS} times {CALLS}; {here()}")
    for name, value in counted.items():
        off = counted.get(f"{name.partition(',')[0]}, off")
        added = "" if off in (None, value) else f"   + {value - off:6.1f} k"
        beside = f"   held: {expected[name]:7.1f} k ({value / expected[name] - 1:+.1%})" if name in expected else ""
        print(f"    {name:32} {value:8.1f} k{beside}{added}")


def figures(counted: Mapping[str, float]) -> Iterator[Figure]:
    if (off := counted.get("worker, off")) is not None:
        yield Figure("instructions", off, off, off)
        if (full := counted.get("worker, full")) is not None:
            yield Figure("instructions recorded", full - off, full - off, full - off)


def main() -> int:
    parser = option_parser(__doc__, quick=False)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--check", action="store_true", help="hold the counts to those of the file")
    chosen.add_argument("--write", action="store_true", help="write the counts to the file")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument(
        "--more", action="store_true", help="a worker's other levels and samplings, and a stock SDK, too"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print every count")
    given = parser.parse_args()
    if not is_installed():
        print("valgrind is not installed (scripts/install-valgrind); nothing is counted", file=sys.stderr)
        return NOTHING_HELD
    if given.check and here() not in held():
        print(f"{HELD.name} holds no counts for {here()}; add them with --write", file=sys.stderr)
        return NOTHING_HELD
    cases = [case for case in (*CASES, *(MORE if given.more else ())) if case.name.startswith(given.only)]
    counted = count_all(cases, verbose=given.verbose)
    report(counted)
    note(given.figures, figures(counted))
    if given.write:
        write(counted)
    if not given.check:
        return 0
    wrong, to_do = compare(counted, held()[here()])
    for line in (*wrong, *to_do):
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
