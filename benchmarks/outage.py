"""A worker through an outage of its collector: python -m benchmarks.outage --minutes 10.

500 requests a second for as long as it lasts, and some time before and after: 6 spans and 6 durations each,
over OTLP/gRPC to a collector that is a process of its own. Prints what was measured against its targets, and
exits with 1 if one was missed; that of latency is printed only, since other programs add to it. Latencies
are of five requests sent at once, each hundredth of a second. A second worker, whose collector stays, gets the
same in between, and the outage adds the difference of the two p99, window by window of
five seconds.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load import GrpcLoad, LocalLoad, load_of
from benchmarks.overload import resident
from benchmarks.transports import chosen
from benchmarks.worker import start
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.telemetry import Ledger
from snakepit_otel.telemetry.export.ledger import Account
from tests.telemetry.difficult_sink import DifficultSink, Mood

AT_ONCE = 5
TICK = 0.01
WINDOW = 5.0
SPANS_OF_A_REQUEST = 6
BEFORE_AND_AFTER = 30.0
RESUMES_WITHIN = 10.0
MORE_MEMORY = 32.0
# The worker's grace, and what telemetry may add to it.
STOPS_WITHIN = 2.0 + 3.0


class Collector:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.outage", "--collect"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.endpoint: str = self._read()

    def be(self, mood: str) -> None:
        """Change its mood; returns when it has changed."""
        self._request(mood)

    def counts(self) -> dict[str, int]:
        """Return how many items it has taken, by signal; of spans, how many different ones."""
        found: dict[str, int] = self._request("counts")
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _request(self, word: str) -> Any:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def collect() -> None:
    with DifficultSink() as sink:
        print(json.dumps(sink.endpoint), flush=True)
        for line in sys.stdin:
            word = line.strip()
            if word != "counts":
                sink.be(Mood(word))
            print(json.dumps({**sink.accepted, "traces": len(set(sink.taken))}), flush=True)


@dataclass
class Phase:
    windows: list[list[float]] = field(default_factory=lambda: [[]])
    beside: list[list[float]] = field(default_factory=lambda: [[]])
    memory: list[float] = field(default_factory=list)
    requests: int = 0

    @property
    def p99(self) -> float:
        """In milliseconds; the median of all windows."""
        return statistics.median(p99s(self.windows))

    @property
    def p99_beside(self) -> float:
        """That of the other worker."""
        return statistics.median(p99s(self.beside))

    @property
    def median(self) -> float:
        """In milliseconds."""
        return 1e3 * statistics.median(latency for window in self.windows for latency in window)

    @property
    def slowest(self) -> float:
        """In milliseconds."""
        return 1e3 * max(latency for window in self.windows for latency in window)

    @property
    def difference(self) -> tuple[float, float]:
        """How much later than the other worker this one is, at the p99, in milliseconds; and how sure that is."""
        differences = [ours - theirs for ours, theirs in zip(p99s(self.windows), p99s(self.beside), strict=True)]
        return statistics.median(differences), 1.25 * statistics.stdev(differences) / len(differences) ** 0.5


def p99s(windows: list[list[float]]) -> list[float]:
    """Return the p99 of each window that is not cut short, in milliseconds."""
    return [1e3 * statistics.quantiles(window, n=100)[98] for window in windows if len(window) > WINDOW / TICK / 2]


def ticks(seconds: float) -> Iterator[None]:
    due = time.perf_counter()
    end = due + seconds
    while due < end:
        left = due - time.perf_counter()
        if left > 0:
            time.sleep(left)
        yield
        due += TICK


def run(load: GrpcLoad | LocalLoad, beside: GrpcLoad | LocalLoad, pid: int, seconds: float, watch: Any = None) -> Phase:
    """Send requests at a steady pace; `watch` is called each half second. Raises if one is not answered rightly."""
    phase = Phase()
    begin = looked = time.perf_counter()
    turns = [(load, phase.windows), (beside, phase.beside)]
    for _ in ticks(seconds):
        if time.perf_counter() - begin > WINDOW * len(phase.windows):
            phase.windows.append([])
            phase.beside.append([])
        for one, windows in turns:
            sent = time.perf_counter()
            one.run(AT_ONCE)
            windows[-1].append(time.perf_counter() - sent)
        turns.reverse()
        phase.requests += AT_ONCE
        now = time.perf_counter()
        if now - looked > 0.5:
            looked = now
            phase.memory.append(resident(pid) / 2**20)
            if watch is not None:
                watch()
    return phase


@dataclass
class Line:
    what: str
    measured: str
    target: str = ""
    met: bool = True
    # Whether to miss it is a failure.
    counts: bool = True


def measure(mood: str, minutes: float) -> list[Line]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory:
        ledger = Path(directory) / "ledger"
        collector, lasting = Collector(), Collector()
        worker, load = serve(f"{directory}/worker.sock", collector, SNAKEPIT_TELEMETRY_LEDGER=str(ledger))
        other, beside = serve(f"{directory}/other.sock", lasting)
        try:
            at_start = books(ledger)["traces"].ended
            warm = run(load, beside, worker.pid, 10.0)
            before = run(load, beside, worker.pid, BEFORE_AND_AFTER)
            collector.be(mood)
            during = run(load, beside, worker.pid, 60.0 * minutes)
            away = books(ledger)
            had = collector.counts()
            returned = time.perf_counter()
            collector.be(Mood.OK)
            resumed: dict[str, float] = {}

            def look() -> None:
                now = collector.counts()
                for name in ("traces", "metrics"):
                    if now[name] > had[name]:
                        resumed.setdefault(name, time.perf_counter() - returned)

            after = run(load, beside, worker.pid, BEFORE_AND_AFTER, look)
            load.close()
            stopped = time.perf_counter()
            worker.send_signal(signal.SIGTERM)
            status = worker.wait(30)
            stopped = time.perf_counter() - stopped
            final, taken = books(ledger), collector.counts()
        finally:
            for process in (worker, other):
                process.kill()
                process.wait()
            collector.close()
            lasting.close()
    stretches = (warm, before, during, after)
    requests = sum(stretch.requests for stretch in stretches)
    level, peak = max(before.memory), max(during.memory + after.memory)
    spans = final["traces"]
    (added, unsure), allowed = during.difference, max(1.0, 0.05 * during.p99_beside)
    settled = all(account.queued == 0 for account in final.accounts.values())
    early = away["traces"].delivered - had["traces"]
    losses = ", ".join(f"{reason} {count}" for reason, count in spans.lost().items()) or "nothing"
    times = [f"{name} before, during, after" for name in ("p99", "median", "slowest")]
    return [
        # The load stops at the first that is not.
        Line("requests answered", f"{requests} of {requests}", "all"),
        Line("memory before, peak", f"{level:.1f}, {peak:.1f} MB", f"+{MORE_MEMORY:g} MB", peak < level + MORE_MEMORY),
        *(
            Line(f"{name} flow again", *took(resumed.get(name)), met=resumed.get(name, 1e9) <= RESUMES_WITHIN)
            for name in ("traces", "metrics")
        ),
        Line(
            "added to the p99",
            f"{added:+.1f} ± {unsure:.1f} ms",
            f"+{allowed:.1f} ms",
            added - 2 * unsure <= allowed,
            counts=False,
        ),
        Line(times[0], milliseconds(stretches, "p99")),
        Line("beside it", milliseconds(stretches, "p99_beside")),
        Line(times[1], milliseconds(stretches, "median")),
        Line(times[2], milliseconds(stretches, "slowest")),
        Line("spans ended", f"{spans.ended}", "6 a request", spans.ended == at_start + SPANS_OF_A_REQUEST * requests),
        Line("what became of them", repr(spans).partition(" = ")[2], "adds up", settled and adds_up(spans)),
        Line("spans lost to the outage", losses),
        Line("delivered in the outage", f"{early} more than taken", "0", early == 0),
        *(
            Line(f"{name} at the collector", f"{taken[name]}", "as delivered", taken[name] == final[name].delivered)
            for name in ("traces", "metrics")
        ),
        Line("exit after SIGTERM", f"{stopped:.2f} s", f"{STOPS_WITHIN:g} s", status == 0 and stopped < STOPS_WITHIN),
    ]


def serve(path: str, collector: Collector, **environ: str) -> tuple[subprocess.Popen[bytes], GrpcLoad | LocalLoad]:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "5000"}
    worker = start("worker", path, **endpoint, **environ)
    return worker, load_of(chosen(), path, execute_request("echo", {"value": "hello"}, "s"), AT_ONCE, sampled=1.0)


def books(path: Path) -> Ledger:
    found = Ledger.read(path)
    assert found is not None
    return found


def adds_up(account: Account) -> bool:
    return account.ended == account.delivered + account.failed + sum(account.dropped.values())


def took(seconds: float | None) -> tuple[str, str]:
    return "never" if seconds is None else f"after {seconds:.1f} s", f"{RESUMES_WITHIN:g} s"


def milliseconds(stretches: tuple[Phase, ...], what: str) -> str:
    return ", ".join(f"{getattr(phase, what):.1f}" for phase in stretches[1:]) + " ms"


def main() -> int:
    parser = argparse.ArgumentParser(description="A worker through an outage of its collector.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the collector is away")
    parser.add_argument("--moods", nargs="+", type=Mood, default=[Mood.REFUSED], help="how it is away")
    parser.add_argument("--collect", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.collect:
        collect()
        return 0
    missed = 0
    for mood in options.moods:
        lines = measure(mood, options.minutes)
        print(f"collector {mood} for {options.minutes:g} min, {AT_ONCE / TICK:.0f} requests/s")
        for line in lines:
            missed += line.counts and not line.met
            target = f"   target {line.target}: {'met' if line.met else 'MISSED'}" if line.target else ""
            print(f"    {line.what:30} {line.measured}{target}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
