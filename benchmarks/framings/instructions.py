"""Instructions of a server for a call of each framing: python -m benchmarks.framings.instructions.

Counted by valgrind's callgrind, so that figures do not depend on what else the machine does; an echo of 100 bytes, one
call in flight and 64, by asyncio's loop, less what a server takes to start and to stop. Needs valgrind; takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.framings.__main__ import LOADS, Load, Row, calls, connect, framings, runner

CALLS = 3000


def main() -> int:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (apt-get install valgrind); nothing is counted", file=sys.stderr)
        return 0
    loads = [load for load in LOADS if load.bytes == 100 and not load.streams]
    print("instructions of a server for a call")
    print(f"{'':44}{loads[0].name:>26}{loads[1].name:>26}")
    rows = [row for row in framings() if row.loop == "asyncio"]
    jobs = [(row, load) for row in rows for load in loads]
    loops = sorted({row.loop for row in rows})
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = dict(zip(loops, pool.map(lambda loop: total(directory, loop), loops), strict=True))
        totals = pool.map(lambda job: total(directory, job[0].loop, *job), jobs)
        counts = {job: (found - starts[job[0].loop]) / CALLS for job, found in zip(jobs, totals, strict=True)}
    for row in rows:
        figures = (
            f"{counts[row, load] / 1e3:15.1f} k{counts[row, load] / counts[rows[0], load]:7.2f} ×" for load in loads
        )
        print(f"{', '.join(row):44}{''.join(figures)}")
    return 0


def total(directory: str, loop: str, row: Row | None = None, load: Load | None = None) -> int:
    """Return the instructions of a server that answers a load of so many calls, or none."""
    name = f"{loop}-{row and row.socket}-{load and load.in_flight}"
    folder, log = Path(directory, name), Path(directory, f"{name}.log")
    folder.mkdir()
    arguments = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}"]
    arguments += [sys.executable, "-m", "benchmarks.framings", "--serve", str(folder), loop]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": "0"})
    assert server.stdout is not None
    try:
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError(log.read_text())
        if row and load:
            with runner(loop) as running:
                caller = running.run(connect(f"{folder}/{row.socket}", row))
                running.run(calls([caller], load, number=CALLS))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    found = re.search(r"Collected : (\d+)", log.read_text())
    assert found, log.read_text()
    return int(found[1])


if __name__ == "__main__":
    raise SystemExit(main())
