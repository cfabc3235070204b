"""Files that outlive who wrote them: rosters of workers, ledgers of telemetry."""

from __future__ import annotations

import tempfile
from pathlib import Path

from snakepit_otel.pool.workers.orphans import _read_workers
from tests.fuzz.kit import insist, target
from tests.fuzz.targets.settings import _directory


@target()
def rosters(data: bytes) -> None:
    """A roster of a dead authority names workers by what can be a process, or none."""
    with tempfile.NamedTemporaryFile(dir=_directory()) as made:
        made.write(data)
        made.flush()
        for started, orphan in _read_workers(Path(made.name)):
            insist(started > 0)
            insist(1 < orphan.pid <= 1 << 22)
            insist(orphan.worker_id.isascii() and orphan.worker_id.isprintable())
