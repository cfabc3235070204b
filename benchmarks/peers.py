"""Echo and a counter for each session on what people would otherwise run: python -m benchmarks.peers --install.

Ray actors, Ray Serve, Celery and dramatiq with Redis, and a pool of ours: two workers each on the same two cores, 64
calls in flight, by the fastest way that each offers, each row in a file of benchmarks/peer_rows. Everything is recorded
for ours, and exported to a sink; nothing is for the others. One peer runs at a time, since some take processor time
while idle, beside two bare grpc.aio servers and `Snakepit.execute`. All take turns in short bursts: ratios are medians
of bursts in the same turn.

The peers are the dependency group `peers` of pyproject.toml. They are no part of requirements.lock, as nothing else
needs half a gigabyte more: `--install` makes an environment of their own from benchmarks/peers.txt, which `make lock`
writes too, in the user's cache. Redis or Valkey must be there: scripts/install-redis.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.peer_rows import environment
from benchmarks.peer_rows.caller import Caller, calling
from benchmarks.peer_rows.environment import NotMeasured
from benchmarks.peer_rows.turns import IN_FLIGHT, WORKERS
from benchmarks.session_servers import executables, server
from benchmarks.transports import TRANSPORTS, environ_of
from benchmarks.worker import serving

CORES = 2
WORKS = {"echo": "echo", "count": "a counter for each session"}
NO_CALL_HOME = {"RAY_USAGE_STATS_ENABLED": "0"}
# By default its workers have a lower priority than their caller, and wait for it where cores are short.
SAME_PRIORITY = {"RAY_worker_niceness": "0"}


@dataclass(frozen=True)
class Peer:
    name: str
    module: str
    rows: Mapping[str, str]
    """Texts of rows, by the name of their bursts."""
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    needs_redis: bool = False
    level: str = "full"
    is_ours: bool = False

    def environ(self, sink: str, redis_url: str, transport: str) -> dict[str, str]:
        if not self.is_ours:
            return NO_CALL_HOME | SAME_PRIORITY | {"PEERS_REDIS": redis_url}
        settings = environ_of(transport)
        if self.level == "off":
            return settings | {"SNAKEPIT_TELEMETRY_LEVEL": "off"}
        return settings | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }


def ours(text: str, *arguments: str, level: str = "full") -> Peer:
    return Peer("ours", "ours", {"ours": text}, arguments, level=level, is_ours=True)


BARE = Peer("bare", "bare_grpc", {"bare": "bare `grpc.aio`, two servers"}, level="off", is_ours=True)
EXECUTE = ours("`Snakepit.execute`")
PEERS = (
    ours("`Snakepit.execute`, telemetry off", level="off"),
    ours("`Snakepit.execute`, plain tool", "--plain"),
    ours("`Snakepit.execute`, profile process", "--profile", "process"),
    ours("`Client`, another process", "--client"),
    ours("`Client`, another process, telemetry off", "--client", level="off"),
    Peer(
        "ray",
        "ray_actors",
        {
            "async awaited": "Ray actor, async method, awaited",
            "async": "Ray actor, async method, `ray.get`",
            "plain awaited": "Ray actor, plain method, awaited",
            "plain": "Ray actor, plain method, `ray.get`",
        },
        packages=("ray",),
    ),
    Peer("serve", "ray_serve", {"handle": "Ray Serve, by handle"}, packages=("ray",), needs_redis=True),
    Peer("celery", "celery_tasks", {"task": "Celery and Redis"}, packages=("celery",), needs_redis=True),
    Peer("dramatiq", "dramatiq_tasks", {"actor": "dramatiq and Redis"}, packages=("dramatiq",), needs_redis=True),
)


@dataclass
class Samples:
    """Bursts of a row, with those of the same turns of what it is compared with."""

    rates: list[float] = field(default_factory=list)
    of_bare: list[float] = field(default_factory=list)
    execute_times: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    bare_took: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """Medians: calls a second, the share of bare gRPC's, and how many times that `Snakepit.execute`'s is."""

    peer: str
    row: str
    work: str
    calls_per_second: float
    of_bare_grpc: float
    execute_times: float
    p50_ms: float
    p99_ms: float
    p50_of_bare_grpc: float
    p99_of_bare_grpc: float


Key = tuple[str, str, str]


def figures(key: Key, samples: Samples) -> Figures:
    p50, p99 = _percentiles(samples.took)
    bare_p50, bare_p99 = _percentiles(samples.bare_took)
    medians = (statistics.median(values) for values in (samples.rates, samples.of_bare, samples.execute_times))
    return Figures(*key, *medians, 1e3 * p50, 1e3 * p99, p50 / bare_p50, p99 / bare_p99)


def _percentiles(took: list[float]) -> tuple[float, float]:
    hundredths = statistics.quantiles(took, n=100)
    return hundredths[49], hundredths[98]


class Benchmark:
    """Everything that all peers share: a folder, a sink, the two rows beside each of them, and what was measured."""

    def __init__(self, folder: Path, chosen: argparse.Namespace) -> None:
        self.samples: dict[Key, Samples] = {}
        self._folder = folder
        self._venv: Path = chosen.venv
        self._transport: str = chosen.transport
        self._rounds: int = chosen.rounds
        self._calls: int = chosen.calls
        self._callers = 0

    @contextmanager
    def calling(self, peer: Peer, redis_url: str = "") -> Iterator[Caller]:
        self._callers += 1
        folder = self._folder / str(self._callers)
        folder.mkdir(mode=0o700)
        executable = sys.executable if peer.is_ours else environment.python(self._venv)
        command = [executable, "-m", f"benchmarks.peer_rows.{peer.module}", str(folder), *peer.arguments]
        sink = f"unix:{self._folder}/sink.sock"
        with calling(command, peer.environ(sink, redis_url, self._transport), folder / "log") as caller:
            yield caller

    def measure(self, peers: Sequence[Peer]) -> dict[str, str]:
        """Measure one after the other, and return why rows have no figures."""
        missing = dict[str, str]()
        with serving("sink", f"{self._folder}/sink.sock"), self.calling(BARE) as bare, self.calling(EXECUTE) as execute:
            beside = [(BARE, "bare", bare), (EXECUTE, "ours", execute)]
            for peer in peers:
                print(f"measuring {', '.join(peer.rows.values())}", file=sys.stderr)
                try:
                    self._measure_one(peer, beside)
                except NotMeasured as reason:
                    missing |= dict.fromkeys(peer.rows.values(), str(reason))
        return missing

    def _measure_one(self, peer: Peer, beside: list[tuple[Peer, str, Caller]]) -> None:
        with ExitStack() as stack:
            url = ""
            if peer.needs_redis:
                found = executables()
                if not found:
                    raise NotMeasured("there is no Redis; scripts/install-redis installs it")
                command = found.get("Redis") or next(iter(found.values()))
                url = stack.enter_context(server(command, durable=False)).url
            caller = stack.enter_context(self.calling(peer, url))
            turns = [*beside, *((peer, row, caller) for row in peer.rows)]
            numbers = {work: self._numbers(turns, work) for work in WORKS}
            for number in range(self._rounds):
                for work in WORKS:
                    # Who comes after whom changes, since a burst leaves something to do to the next.
                    self._take_turns(turns[:: -1 if number % 2 else 1], work, numbers[work])

    def _numbers(self, turns: list[tuple[Peer, str, Caller]], work: str) -> list[int]:
        """Return the calls of a burst for each of the turns, so that all take as long as bare gRPC's; warms them up."""
        for _, row, caller in turns:
            caller.burst(f"{row} {work}", 2 * IN_FLIGHT)
        rates = [caller.burst(f"{row} {work}", max(2 * IN_FLIGHT, self._calls // 3)).rate for _, row, caller in turns]
        return [max(2 * IN_FLIGHT, int(self._calls * rate / rates[0])) for rate in rates]

    def _take_turns(self, turns: list[tuple[Peer, str, Caller]], work: str, numbers: list[int]) -> None:
        answers = {}
        for (peer, row, caller), number in zip(turns, numbers, strict=True):
            answers[peer.name, peer.rows[row], work] = caller.burst(f"{row} {work}", number)
        bare, execute = (answers[peer.name, next(iter(peer.rows.values())), work] for peer in (BARE, EXECUTE))
        for key, answer in answers.items():
            samples = self.samples.setdefault(key, Samples())
            samples.rates.append(answer.rate)
            samples.of_bare.append(answer.rate / bare.rate)
            samples.execute_times.append(execute.rate / answer.rate)
            samples.took += answer.took
            samples.bare_took += bare.took


def table(rows: Sequence[Figures], missing: Mapping[str, str], work: str) -> Iterator[str]:
    """Yield the lines of docs/performance.md's table."""
    heads = (
        WORKS[work],
        "calls a second, of bare gRPC",
        "`Snakepit.execute` is",
        "p50, of bare gRPC",
        "p99, of bare gRPC",
    )
    yield f"| {heads[0]:44} | {' | '.join(heads[1:])} |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        if row.work == work:
            ratios = map(_times, (row.execute_times, row.p50_of_bare_grpc, row.p99_of_bare_grpc))
            yield f"| {row.row:44} | {1e2 * row.of_bare_grpc:.0f} % | {' | '.join(ratios)} |"
    for text, reason in missing.items():
        yield f"| {text:44} | not measured: {reason.replace('|', ' ')} | | | |"


def _times(ratio: float) -> str:
    """Return it with two digits."""
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×" if ratio >= 1 else f"{ratio:.2f} ×"


def _absolute(bare: Figures) -> str:
    """Return what ratios do not have, of this machine and hour."""
    return f"bare gRPC: {bare.calls_per_second:.0f} a second, p50 {bare.p50_ms:.1f} ms, p99 {bare.p99_ms:.1f} ms; "


def options() -> argparse.Namespace:
    names = sorted({peer.name for peer in PEERS})
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of every row (default: 9)")
    parser.add_argument("--calls", type=int, default=1_500, help="of a burst of bare gRPC; others take as long (1500)")
    parser.add_argument("--only", default=",".join(names), help=f"which of {','.join(names)}, with commas between")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, rates and milliseconds too")
    parser.add_argument(
        "--install", action="store_true", help="install the peers first, as benchmarks/peers.txt has them"
    )
    parser.add_argument("--venv", type=Path, default=environment.default_folder(), help="where they are (%(default)s)")
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0], help="of ours (default: %(default)s)")
    chosen = parser.parse_args()
    chosen.only = set(chosen.only.split(","))
    if unknown := chosen.only - set(names):
        parser.error(f"there is no peer {min(unknown)!r}; there are {', '.join(names)}")
    if chosen.rounds < 1 or chosen.calls < 2 * IN_FLIGHT:
        parser.error(f"--rounds must be at least 1, --calls at least {2 * IN_FLIGHT}")
    return chosen


def main() -> int:
    chosen = options()
    peers = [peer for peer in PEERS if peer.name in chosen.only]
    missing = dict[str, str]()
    if chosen.install:
        try:
            environment.install(chosen.venv)
        except NotMeasured as reason:
            print(reason, file=sys.stderr)
    # Everything that is started inherits them; more cores would be for whoever has more processes.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as folder:
        benchmark = Benchmark(Path(folder), chosen)
        missing |= benchmark.measure(peers)
    rows = [figures(key, samples) for key, samples in benchmark.samples.items()]
    versions = {package: environment.version(package) for peer in peers for package in peer.packages}
    for work in WORKS:
        print("\n".join(table(rows, missing, work)), end="\n\n")
    bare = next((row for row in rows if row.peer == BARE.name), None)
    print(
        f"{WORKERS} workers on {len(os.sched_getaffinity(0))} cores, {IN_FLIGHT} in flight, medians of rounds: "
        f"{chosen.rounds}; {'' if bare is None else _absolute(bare)}"
        f"Python {platform.python_version()}; {', '.join(f'{name} {version}' for name, version in versions.items())}"
    )
    if chosen.json is not None:
        report = {"python": platform.python_version(), "versions": versions, "rounds": chosen.rounds}
        report |= {
            "transport": chosen.transport,
            "calls": chosen.calls,
            "rows": [asdict(row) for row in rows],
            "not_measured": missing,
        }
        chosen.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
