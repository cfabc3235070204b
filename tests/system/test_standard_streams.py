"""Standard streams that are closed, full, or without a reader."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT

SERVER = """
import sys
from snakepit_otel.system import standard_streams
standard_streams.open_closed(output=False)
standard_streams.make_output_non_blocking()
"""


def run(code: str, redirections: str = "") -> tuple[int, str, str]:
    """Run a program in a shell, with redirections of its streams; return its exit status, output and complaints."""
    command = ["bash", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """Return the ends of a pipe that takes nothing more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while os.write(writing, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield reading, writing
    os.close(reading)
    os.close(writing)


CLOSED = ["0<&-", ">&-", "2>&-", "0<&- >&- 2>&-", ">/dev/full 2>/dev/full", "> >(true) 2> >(true)"]


@pytest.mark.parametrize("redirections", CLOSED)
def test_a_server_prints_in_vain_and_goes_on(redirections: str, tmp_path: Path) -> None:
    """Whatever became of its streams, printing and logging raise nothing, and other files get none of it."""
    other = tmp_path / "other"
    code = f"""{SERVER}
import logging, os, subprocess
other = open({str(other)!r}, "wb", buffering=0)
assert other.fileno() > 2
for _ in range(100):
    print("x" * 100)
    logging.error("x")
os.system("echo from a child; echo and more >&2")
assert sys.stdin.read() == ""
raise SystemExit(7)
"""
    status, _, _ = run(code, redirections + " </dev/null" if "0<" not in redirections else redirections)
    assert status == 7
    assert other.read_bytes() == b""


def test_a_full_pipe_is_not_waited_for(full_pipe: tuple[int, int]) -> None:
    """What is printed while nobody reads is kept up to a limit, and written once somebody does, with a note."""
    reading, writing = full_pipe
    code = f"""{SERVER}
import time
for number in range(20_000):
    print(f"line {{number}}", "y" * 50, file=sys.stderr)
print("done", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"done\n"
        received = b""
        while b"are lost" not in received:
            received += os.read(reading, 1 << 16)
        process.stdin.close()
        assert process.wait(30) == 0
    lines = received.lstrip(b"x").splitlines()
    assert lines[0].startswith(b"line 0 ")
    kept = [line for line in lines if line.startswith(b"line ")]
    assert [int(line.split()[1]) for line in kept] == list(range(len(kept)))
    assert 1_000 < len(kept) < 20_000


def test_a_full_pipe_does_not_hold_up_the_end(full_pipe: tuple[int, int]) -> None:
    """At its end the process gives its readers a moment, and no more."""
    _, writing = full_pipe
    code = f"{SERVER}\nprint('x' * 100_000)"
    assert subprocess.call([sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=writing, timeout=30) == 0


def test_a_server_prints_where_somebody_reads() -> None:
    """In the ordinary case, everything arrives, in order, in pipes and files alike."""
    code = f"{SERVER}\nfor number in range(5_000): print(number); print(number, file=sys.stderr)"
    expected = "".join(f"{number}\n" for number in range(5_000))
    assert run(code) == (0, expected, expected)


def test_a_file_is_appended_to_with_others(tmp_path: Path) -> None:
    """Children that share a log file, and its position, do not overwrite each other."""
    log = tmp_path / "log"
    code = f"{SERVER}\nimport os\nfor _ in range(50):\n    print('ours', flush=True); os.system('echo theirs')"
    assert run(code, f">{log}")[0] == 0
    assert log.read_text().splitlines() == ["ours", "theirs"] * 50


OUTPUTS = {
    "to a full disk": ("--version >/dev/full", 1, "error: the output cannot be written: No space left on device\n"),
    "closed": ("--version >&-", 1, "error: the output cannot be written: Bad file descriptor\n"),
    "to nobody, as JSON": ("config show --json | true; exit ${PIPESTATUS[0]}", 141, ""),
    "with an error, complaints closed": ("call x nonsense 2>&-", 2, ""),
}


async def test_exit_statuses_of_commands_are_true() -> None:
    """A command whose output is lost has failed, in one line; one whose complaints are lost has its own status."""

    async def check(arguments: str, status: int, complaint: str) -> None:
        line = f'"$0" -m snakepit_otel {arguments}'
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            line,
            sys.executable,
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, complaints = await process.communicate()
        assert (process.returncode, complaints.decode()) == (status, complaint), arguments

    await asyncio.gather(*(check(*case) for case in OUTPUTS.values()))
