"""The account of a process, which outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.telemetry.export.ledger import DELIVERED, ENDED, FAILED, IN_FLIGHT, QUEUE_FULL, Ledger, SharedLedger
from tests.disks import fill, mounted, needs_mounts

DIES = """
import os, signal, sys, threading
from pathlib import Path
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.export_queue import BatchSettings, ExportQueue, BatchResult

sending, answers = threading.Event(), iter([BatchResult(2, 1), None])

def send(batch):
    answer = next(answers)
    if answer is None:
        sending.set()
        threading.Event().wait()
    return answer

account = Ledger(Path(sys.argv[1]))["traces"]
box = ExportQueue("t", send, lambda: None, account, BatchSettings(queue_size=6, batch_size=3, delay=3600))
for item in range(3):
    box.put(item)
assert box.flush(30)
for item in range(3):
    box.put(item)
assert sending.wait(30)
for item in range(8):
    box.put(item)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_can_be_read_after_a_violent_death(tmp_path: Path) -> None:
    """Whoever started a process knows what became of its telemetry, even if it was killed in the middle."""
    path = tmp_path / "ledger"
    ended = subprocess.run([sys.executable, "-c", DIES, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    ledger = Ledger.read(path)
    assert ledger is not None
    account = ledger["traces"]
    assert (account.ended, account.delivered, account.failed) == (14, 2, 1)
    assert account.lost() == {"failed": 1, "queue_full": 2, "queued": 6, "in_flight": 3}
    assert ledger["logs"].ended == ledger["metrics"].ended == 0


def test_a_ledger_begins_with_nothing(tmp_path: Path) -> None:
    """A file that another process left is emptied."""
    path = tmp_path / "ledger"
    Ledger(path)["logs"].counts[ENDED] += 1
    assert Ledger.read(path)["logs"].ended == 1  # type: ignore[index]
    Ledger(path)
    assert Ledger.read(path)["logs"].ended == 0  # type: ignore[index]


@pytest.mark.parametrize("content", [None, b"", b"short", b"x" * 10_000])
def test_what_is_no_ledger_is_not_read(tmp_path: Path, content: bytes | None) -> None:
    """A process that died before it wrote, or wrote something else, left no account."""
    path = tmp_path / "ledger"
    if content is not None:
        path.write_bytes(content)
    assert Ledger.read(path) is None


def test_an_account_can_be_read_by_people() -> None:
    """It says where everything is."""
    account = Ledger()["traces"]
    for slot, figure in ((ENDED, 10), (DELIVERED, 4), (FAILED, 1), (QUEUE_FULL, 2), (IN_FLIGHT, 2)):
        account.counts[slot] = figure
    assert account.queued == 3
    assert repr(account) == (
        "ended 10 = delivered 4 + failed 1 + dropped {'queue_full': 2, 'shutdown': 0, 'encode': 0} + queued 3"
    )
    assert account.lost() == {"failed": 1, "queue_full": 2, "queued": 1, "in_flight": 2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path) as disk:
        yield disk


INHERITS = """
import os, signal, sys
from pathlib import Path
from snakepit_otel.telemetry.export.ledger import Ledger

ledger = Ledger.inherited(sys.argv[1])
ledger["traces"].counts[0] += 3
assert not Path(sys.argv[1]).exists(), "what a tool starts would inherit it"
ledger["traces"].counts[1] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_shared_ledger_needs_no_file() -> None:
    """A process counts in memory that it inherited, and passes on to nobody; its parent reads it afterwards."""
    shared = SharedLedger()
    command = [sys.executable, "-c", INHERITS, shared.path]
    ended = subprocess.run(command, check=False, timeout=60, pass_fds=[shared.descriptor], stderr=subprocess.PIPE)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    left = shared.read()
    assert left is not None
    assert (left["traces"].ended, left["traces"].delivered) == (3, 1)
    shared.close()
    assert shared.read() is None


def test_a_shared_ledger_keeps_its_size() -> None:
    """Nobody who has its descriptor can take away the page that others have mapped."""
    shared = SharedLedger()
    try:
        with pytest.raises(OSError, match="not permitted"):
            os.truncate(shared.path, 0)
    finally:
        shared.close()


@needs_mounts
def test_a_ledger_on_a_full_disk_is_refused(small_disk: Path) -> None:
    """The file's page is allocated before it is mapped, so that no write to it is a SIGBUS."""
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        Ledger(small_disk / "ledger")
