"""The cost of telemetry in a worker: python -m benchmarks.telemetry.

An echo tool on one worker, 32 calls in flight, each the beginning of a trace: 6 spans and 6 durations per
request, exported over OTLP/gRPC to a peer that throws them away. The cases take turns in short bursts, each
paired with one of a worker at level `off`; the figures are medians of the pairs. Each case is several pairs of
processes, since no two are quite equally fast. `stock` is the same worker and points, done by plain calls of
OpenTelemetry's SDK. The load is prebuilt frames, since gRPC's own client takes more processor time than what
is measured.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

from benchmarks.figures import option_parser
from benchmarks.load import GrpcLoad, LocalLoad, load_of
from benchmarks.transports import choose, chosen
from benchmarks.worker import processor_time, serving
from snakepit_otel.bridge.wire.tool_calls import execute_request

IN_FLIGHT = 32
CALLS = 600
INSTANCES = 3


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    level: str
    sampled: float
    target: float | None = None


OFF = Case("off", "worker", "off", 1.0)
CASES = (
    Case("off, again", "worker", "off", 1.0, 0.97),
    Case("full, 100 % sampled", "worker", "full", 1.0, 0.85),
    Case("full, 10 % sampled", "worker", "full", 0.1, 0.90),
    Case("essential, 100 % sampled", "worker", "essential", 1.0),
    Case("stock SDK, 100 % sampled", "stock", "full", 1.0),
    Case("stock SDK, 10 % sampled", "stock", "full", 0.1),
)


@dataclass(eq=False)
class Worker:
    load: GrpcLoad | LocalLoad
    server: subprocess.Popen[bytes]
    rates: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def burst(self) -> float:
        before = processor_time(self.server.pid)
        self.rates.append(self.load.run(CALLS))
        self.seconds += processor_time(self.server.pid) - before
        return self.rates[-1]


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, help="pairs of bursts for each case (41; with --quick 9)")
    given = parser.parse_args()
    choose(given.transport)
    rounds = given.rounds or (9 if given.quick else 41)
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, ExitStack() as stack:
        stack.enter_context(serving("sink", f"{directory}/sink.sock"))
        numbers = count()
        request = execute_request("echo", {"value": "hello"}, "s")

        def worker(case: Case) -> Worker:
            path = f"{directory}/{next(numbers)}.sock"
            server = stack.enter_context(serving(case.kind, path, **environment(case, directory)))
            running = Worker(load_of(chosen(), path, request, IN_FLIGHT, case.sampled), server)
            running.load.run(2 * CALLS)
            return running

        pairs = {case: [(worker(OFF), worker(case)) for _ in range(INSTANCES)] for case in CASES}
        measure(pairs, rounds)


def environment(case: Case, directory: str) -> dict[str, str]:
    return {
        "SNAKEPIT_TELEMETRY_LEVEL": case.level,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{directory}/sink.sock",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }


def measure(pairs: dict[Case, list[tuple[Worker, Worker]]], rounds: int) -> None:
    ratios: dict[Case, list[float]] = {case: [] for case in pairs}
    for number in range(rounds):
        for case, of_case in pairs.items():
            off, on = of_case[number % INSTANCES]
            # One after the other, since the machine's pace changes from second to second; by turns first.
            first, second = (off, on) if number // INSTANCES % 2 else (on, off)
            rates = {first: first.burst(), second: second.burst()}
            ratios[case].append(rates[on] / rates[off])
    print(f"echo, {IN_FLIGHT} in flight, {chosen()} transport, medians of {rounds} pairs of bursts of {CALLS} calls")
    print("    case                        calls/s   of level off    µs of worker a call, and at level off")
    for case, of_case in pairs.items():
        off_cost, cost = (sum(pair[place].seconds for pair in of_case) / rounds / CALLS * 1e6 for place in (0, 1))
        rate = statistics.median(rate for pair in of_case for rate in pair[1].rates)
        paired = statistics.median(ratios[case])
        # The standard error of a median, as if these were normally distributed.
        spread = 1.25 * statistics.stdev(ratios[case]) / rounds**0.5
        target = f"   target {case.target:.0%}" if case.target else ""
        print(f"    {case.name:26} {rate:7.0f}   {paired:6.1%} ± {spread:4.1%}   {cost:9.0f} {off_cost:5.0f}{target}")


if __name__ == "__main__":
    main()
