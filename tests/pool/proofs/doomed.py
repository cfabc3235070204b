"""An adapter whose module kills whoever imports it, as long as there is a file where SNAKEPIT_DOOM says."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.pool.proofs.adapter import Proving

if Path(os.environ["SNAKEPIT_DOOM"]).exists():
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(Proving):
    """The same, for as long as it lives."""
