"""The cost of a pool beside bare gRPC servers: python -m benchmarks.pool [--quick].

An echo tool on two workers, 64 calls in flight, telemetry off: through `Snakepit.execute`, in the process of the
authority, and through `Client`, from another one. Against the same code with nothing between: gRPC's own client on two
bare grpc.aio servers, 32 calls in flight on each. Every burst has one of the bare servers right beside it, before and
after by turns; shares are of that one, and what is printed is their median and quartiles. One call at a time is
measured in the same way. The last line has all telemetry on, exported over OTLP to a sink, beside the same with
telemetry off; its bursts are long, since what was recorded is sent once a second. Processor time is the caller's
process's.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.callers import IN_FLIGHT, WORKERS, Burst, Caller
from benchmarks.figures import LINES, Figure, figure_of, note, option_parser
from benchmarks.transports import choose
from benchmarks.worker import serving

OFF = {"SNAKEPIT_TELEMETRY_LEVEL": "off"}


@dataclass(frozen=True)
class Row:
    """A case beside its base: who calls what, how many at a time, and in bursts of how many seconds."""

    line: str
    text: str
    caller: str
    base: str = "bare"
    tool: str = "echo"
    in_flight: int = IN_FLIGHT
    seconds: float = 0.5


ROWS = (
    Row("thread", "Snakepit.execute", "thread"),
    Row("process", "Snakepit.execute, profile process", "process"),
    Row("client", "Client, other process", "client"),
    Row("plain", "Snakepit.execute, plain tool", "thread", tool="echo_plain"),
    Row("alone", "Snakepit.execute, one at a time", "thread", in_flight=1),
    Row("recorded", "Snakepit.execute, recorded", "recorded", base="thread", seconds=3.0),
)


@dataclass
class Measured:
    row: Row
    # Bursts of the case and of its base, in pairs.
    pairs: list[tuple[Burst, Burst]] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """The case's rates as shares of the base's, or where calls are made one at a time, its p50 by the base's."""
        if self.row.in_flight == 1:
            return [statistics.median(ours.took) / statistics.median(base.took) for ours, base in self.pairs]
        return [ours.rate / base.rate for ours, base in self.pairs]

    @property
    def figure(self) -> Figure:
        percent = 100 if LINES[self.row.line].unit == "%" else 1
        return figure_of(self.row.line, [percent * ratio for ratio in self.ratios])


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, help="pairs of bursts for each line (15; with --quick 5)")
    given = parser.parse_args()
    rounds = given.rounds or (5 if given.quick else 15)
    choose(given.transport)
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as text, serving("sink", f"{text}/sink.sock"):
        full = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{text}/sink.sock",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        callers = {name: Caller(name, Path(text), OFF) for name in ("bare", "thread", "process", "client")}
        callers["recorded"] = Caller("thread", Path(text), full)
        try:
            measured = measure(callers, rounds, 0.4 if given.quick else 1.0)
        finally:
            for caller in callers.values():
                caller.close()
    report(measured, rounds, given.transport)
    note(given.figures, [one.figure for one in measured])


def measure(callers: dict[str, Caller], rounds: int, pace: float) -> list[Measured]:
    """Make the bursts of all rows, in turns, each as many seconds long as its row has, times `pace`."""

    def warmed_up(row: Row, name: str, tool: str) -> int:
        rate = max(callers[name].burst(20 * row.in_flight, row.in_flight, tool).rate for _ in range(3))
        return max(int(rate * row.seconds * pace), 4 * row.in_flight)

    numbers = {row: (warmed_up(row, row.caller, row.tool), warmed_up(row, row.base, "echo")) for row in ROWS}
    measured = [Measured(row) for row in ROWS]
    for turn in range(rounds):
        for one in measured:
            row, (ours, base) = one.row, numbers[one.row]
            first = callers[row.base].burst(base, row.in_flight) if turn % 2 else None
            burst = callers[row.caller].burst(ours, row.in_flight, row.tool)
            # Which of the two comes first is by turns, since the machine's pace changes from second to second.
            one.pairs.append((burst, first or callers[row.base].burst(base, row.in_flight)))
    return measured


def report(measured: list[Measured], rounds: int, transport: str) -> None:
    print(f"echo, {WORKERS} workers, {IN_FLIGHT} in flight, {transport} transport")
    print(f"medians (quartiles) of {rounds} pairs of bursts in turns")
    bare = [base for one in measured if one.row.base == "bare" and one.row.in_flight > 1 for _, base in one.pairs]
    print(f"  {'bare grpc.aio servers':34} {described(bare)}")
    for one in measured:
        line = LINES[one.row.line]
        base = "level off" if one.row.base != "bare" else "bare p50" if one.row.in_flight == 1 else "bare"
        ours = described([ours for ours, _ in one.pairs])
        print(f"  {one.row.text:34} {ours}  {one.figure.text()} of {base}   target {line.in_words()}")


def described(bursts: list[Burst]) -> str:
    took = sorted(seconds for burst in bursts for seconds in burst.took)
    p50, p99 = took[len(took) // 2], took[int(0.99 * len(took))]
    used = sum(burst.used for burst in bursts) / len(took)
    rate = statistics.median(burst.rate for burst in bursts)
    return f"{rate:6.0f}/s  p50 {1e3 * p50:6.2f}, p99 {1e3 * p99:6.2f} ms  {1e6 * used:4.0f} µs CPU"


if __name__ == "__main__":
    main()
