"""Tools for the workers of the proof: good ones, and ones that fail on purpose."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from opentelemetry import metrics

from snakepit_otel import telemetry, tool, zero_copy
from snakepit_otel.telemetry import names
from tests.pool.proofs.adapter import Proving

_PR_SET_PDEATHSIG = 1
_orders = metrics.get_meter("tests.dashboards.proof").create_counter("proof.orders")


class Good(Proving):
    """Tools as they are meant to be, beside those of other proofs."""

    @tool
    def add(self, amount: int) -> int:
        """Add to the session's total and return it."""
        total: int = self.session_context.state.change("total", lambda total: total + amount, default=0)
        return total

    @tool
    def double(self, array: Any) -> Any:
        """Return an array as large as the one that came."""
        return np.asarray(array.to_numpy()) * 2


class Bad(Good):
    """Tools that fail in every way that something looks out for."""

    kept: ClassVar[list[Any]] = []

    def cleanup(self) -> None:
        """Fail, for some."""
        if getattr(self, "untidy", False):
            raise OSError("no way to clean this up")

    @tool
    def make_a_mess(self) -> None:
        """Leave what cannot be cleaned up."""
        self.untidy = True

    @tool
    def keep(self, array: Any) -> None:
        """Keep a view of an array beyond the request."""
        self.kept[:] = [array.to_numpy()]

    @tool
    def hold(self, array: Any, until: str) -> int:
        """Keep an array until there is a file."""
        while not Path(until).exists():
            time.sleep(0.05)
        return len(array.to_numpy())

    @tool
    async def outlive(self) -> None:
        """Have the kernel spare this process when its authority dies, as it does one that has changed its user."""
        # On the event loop, because that is kept for each thread, and its one has asked for it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)

    @tool
    def call_nobody(self) -> None:
        """Call a tool of the authority that it does not have."""
        self.session_context.call_elixir_tool("nobody")

    @tool
    def forget_an_array(self) -> None:
        """Put an array where it can be shared, for nobody."""
        zero_copy.from_numpy(np.arange(2_000.0))

    @tool
    def mislabel(self) -> None:
        """Record a metric of ours with an attribute that it does not have."""
        telemetry.record(names.METRIC_DOCTOR_CANARY, 0, {"order": "7"})

    @tool
    def miscount(self) -> None:
        """Record what is no number, as no type checker would let it pass."""
        number: Any = "seven"
        telemetry.record(names.METRIC_DOCTOR_CANARY, number, {})

    @tool
    def fork(self) -> None:
        """Fork this process; the child has nothing to do."""
        if os.fork() == 0:
            os._exit(0)

    @tool
    def count_orders(self, orders: int) -> None:
        """Count each order by its own number, which is a mistake."""
        for order in range(orders):
            _orders.add(1, {"order": order})


class UnderElixir(Bad):
    """Tools for an Elixir, which has other tools to call, and no memory that could be shared."""

    @tool
    def ask(self, name: str) -> Any:
        """Call a tool of Elixir's."""
        return self.session_context.call_elixir_tool(name, a=1, b=2)

    @tool
    def lend(self) -> Any:
        """Return a reference to an array."""
        return zero_copy.from_numpy(np.arange(2_000.0))
