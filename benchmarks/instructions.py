"""Instructions that a worker takes for a request: python -m benchmarks.instructions.

The same worker and cases as in benchmarks/telemetry.py, run by valgrind's callgrind, which counts instead of
measuring: what is printed does not depend on the machine's mood. Needs valgrind; takes some minutes.
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

from benchmarks.load import Load
from benchmarks.telemetry import CASES, OFF, Case, environment
from benchmarks.worker import serving
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL
from snakepit_otel.bridge.wire.tool_calls import execute_request

FEW, MANY = 100, 500


def main() -> int:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (apt-get install valgrind); nothing is counted", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, serving("sink", f"{directory}/sink.sock"):
        chosen = [case for case in (OFF, *CASES) if case.name != "off, again"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counted = dict(zip(chosen, pool.map(lambda case: count(case, directory), chosen), strict=True))
    base = counted[OFF]
    print(f"instructions of a worker for an echo request, from {MANY - FEW} of them")
    for case, instructions in counted.items():
        added = (instructions - base) / 1e3
        print(f"    {case.name:26} {instructions / 1e3:8.0f} k   {instructions / base:5.2f} ×   + {added:6.0f} k")
    return 0


def count(case: Case, directory: str) -> float:
    few, many = (total(case, directory, calls) for calls in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def total(case: Case, directory: str, calls: int) -> int:
    name = f"{abs(hash(case))}-{calls}"
    path, log = f"{directory}/{name}.sock", Path(f"{directory}/{name}.log")
    arguments = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}"]
    arguments += [sys.executable, "-m", "benchmarks.echo_servers", case.kind, f"unix:{path}"]
    environ = {**os.environ, **environment(case, directory), "PYTHONHASHSEED": "0"}
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environ)
    assert server.stdout is not None
    if server.stdout.readline() != b"ready\n":
        raise RuntimeError(log.read_text())
    load = Load(path, EXECUTE_TOOL, execute_request("echo", {"value": "hello"}, "s"), 8, case.sampled)
    load.run(calls)
    load.close()
    server.send_signal(signal.SIGTERM)
    server.wait()
    found = re.search(r"Collected : (\d+)", log.read_text())
    assert found, log.read_text()
    return int(found[1])


if __name__ == "__main__":
    raise SystemExit(main())
