"""What an authority gives the workers of all its pools."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from snakepit_otel.bridge.fences import Fences
from snakepit_otel.pool.orphans import Roster
from snakepit_otel.zero_copy.holdings import Holdings


class Home(NamedTuple):
    """The place where an authority lives, as far as its workers have to do with it."""

    directory: Path
    """A private one, for the workers' sockets; its name is the run id."""
    authority: str
    """The address that workers call back to."""
    holdings: Holdings
    """What the authority holds for its workers' requests."""
    broker: Path | None
    """The socket where they get it; None where memory is not shared."""
    fences: Fences
    """Who may call back, and for which request."""
    roster: Roster
    """Which processes are ours, for whoever comes after us."""
