"""The memory of idle workers: python -m benchmarks.memory.

Four workers of the default profile, which have answered a few requests and rest, with an adapter that imports nothing
but ours: what they take beside an adapter's own. Resident is what `ps` shows, and counts pages that workers share once
for each; the share (Pss) counts each page once for all of them; private is what one more worker adds. Once with
telemetry off, once exported over OTLP. Beside them stands a Python that has done nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import LINES, Figure, note, option_parser
from benchmarks.pool import OFF
from benchmarks.transports import choose, inherited, server_settings
from benchmarks.worker import PYTHON, serving
from snakepit_otel import Snakepit, telemetry

ADAPTER = "benchmarks.echo_adapter:Echo"
WORKERS = 4
MIB = 1 << 20
SIZES = ("resident", "share", "private")
# Seconds of rest, in which what a start has left over goes.
REST = 2.0

Sizes = dict[str, float]


def sizes(pid: int) -> Sizes:
    """Return the MiB that a process takes, by kind."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return dict(zip(SIZES, (one / 1024 for one in (kilobytes["Rss"], kilobytes["Pss"], private)), strict=True))


async def idle() -> dict[str, Sizes]:
    """Return the median of idle workers, and their authority."""
    telemetry.setup("snakepit-authority")
    async with Snakepit(ADAPTER, pool={"size": WORKERS}, server=server_settings()) as pit:
        await asyncio.gather(*(pit.execute("echo", {"value": "hello"}) for _ in range(50 * WORKERS)))
        await asyncio.sleep(REST)
        measured = [sizes(worker.pid) for worker in pit.pool.workers]
        worker = {name: statistics.median(one[name] for one in measured) for name in SIZES}
        return {"worker": worker, "authority": sizes(os.getpid())}


def measure(environ: dict[str, str]) -> dict[str, Sizes]:
    """Run `idle` in a process of its own, whose environment has this in place of our settings and OpenTelemetry's."""
    command = [*PYTHON, "benchmarks.memory", "--process"]
    done = subprocess.run(command, env=inherited() | environ, stdout=subprocess.PIPE, check=True)
    found: dict[str, Sizes] = json.loads(done.stdout)
    return found


def bare_python() -> Sizes:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = sizes(process.pid)
        process.kill()
    return found


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--process", action="store_true", help="measure in this process, and print JSON")
    given = parser.parse_args()
    if given.process:
        print(json.dumps(asyncio.run(idle())))
        return
    choose(given.transport)
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, serving("sink", f"{directory}/sink.sock"):
        exporting = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{directory}/sink.sock",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        off, full = measure(OFF), measure(exporting)
    print(f"{WORKERS} idle workers; MiB {', '.join(SIZES)}")
    rows = {"a Python that has done nothing": bare_python()}
    for text, found in (("telemetry off", off), ("exporting", full)):
        rows |= {f"{kind}, {text}": one for kind, one in found.items()}
    for text, one in rows.items():
        print(f"    {text:32} {'  '.join(f'{one[name]:6.1f}' for name in SIZES)}")
    resident = full["worker"]["resident"]
    print(f"    a worker's resident memory, exporting: {resident:.0f} MiB   target {LINES['memory'].in_words()}")
    note(given.figures, [Figure("memory", resident, resident, resident)])


if __name__ == "__main__":
    main()
