"""Hand-over of an authority's addresses to another process of the same user, which stops this one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from snakepit_otel.bridge.authority.memory import AuthorityMemory
from snakepit_otel.bridge.authority.server import AuthorityServer
from snakepit_otel.errors import HandOverRefused
from snakepit_otel.system import process_table

_log = logging.getLogger("snakepit_otel.authority")
_OFFER_S = 30.0  # for the successor to listen; that takes it milliseconds


class HandOver:
    """The predecessor's end: offers its addresses to one process at a time, and goes when that one listens there.

    An offer that is not taken within 30 seconds is withdrawn. `on_taken` is called with the successor's pid. Only the
    owner of the Unix socket can call, and the kernel lets no other user share a port or replace the socket.
    """

    def __init__(
        self, server: AuthorityServer, memory: AuthorityMemory, on_taken: Callable[[int], None] | None
    ) -> None:
        self._server = server
        self._memory = memory
        self._on_taken = on_taken
        self._offered_to: int | None = None
        self._withdrawal: asyncio.TimerHandle | None = None
        self.is_taken = False

    def offer(self, pid: int) -> None:
        """Let a process take the addresses. Raises `HandOverRefused`."""
        self._check(pid)
        self.withdraw()
        self._offered_to = pid
        self._server.share_ports(shared=True)
        self._memory.set_replaced(True)
        self._withdrawal = asyncio.get_running_loop().call_later(_OFFER_S, self._on_timeout)

    def complete(self, pid: int) -> None:
        """Stop, as the process to which the addresses were offered listens there. Raises `HandOverRefused`."""
        self._check(pid)
        if self._offered_to != pid or self._on_taken is None:
            raise HandOverRefused(f"the addresses are not offered to process {pid}, or no longer")
        self._cancel_withdrawal()
        self.is_taken = True
        self._on_taken(pid)

    def withdraw(self) -> None:
        """Keep the addresses, unless they are taken; does nothing where they are not offered."""
        self._cancel_withdrawal()
        if self._offered_to is not None and not self.is_taken:
            self._offered_to = None
            self._server.share_ports(shared=False)
            self._memory.set_replaced(False)

    def _check(self, pid: int) -> None:
        if self._on_taken is None:
            raise HandOverRefused("the program that serves there is no 'snakepit-otel serve'; stop it first")
        if self.is_taken:
            raise HandOverRefused(f"the server has handed over to process {self._offered_to} already")
        taking = self._offered_to
        if taking not in (None, pid) and process_table.entry(taking or 0) is not None:
            raise HandOverRefused(f"process {taking} is taking over from the server")

    def _on_timeout(self) -> None:
        _log.warning("process %d did not take over in time; this server keeps its addresses", self._offered_to)
        self.withdraw()

    def _cancel_withdrawal(self) -> None:
        if self._withdrawal is not None:
            self._withdrawal.cancel()
            self._withdrawal = None
