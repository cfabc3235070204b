"""Messages that are on their way on TCP: what has come of them is charged to their senders.

gRPC does not show how much it has of a message that is not complete. What a connection has received, less what was
complete, is about that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from snakepit_otel.bridge.authority.byte_budget import Budget, Charge
from snakepit_otel.bridge.wire.peers import Peer
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import BudgetExceeded
from snakepit_otel.system.heap import HeapTrimmer
from snakepit_otel.system.tcp_connections import Connections, Traffic

_log = logging.getLogger("snakepit_otel.authority")
_BUSY_INTERVAL_S = 0.02  # while bytes arrive
_IDLE_INTERVAL_S = 0.1  # while none do, as of holders of leases
_REPEAT_S = 5.0  # within which a second refusal ends the connection
_LOG_INTERVAL_S = 1.0
_GROWTH_BYTES = 1 << 16
_MESSAGE_BYTES = 64
_COPIES_HELD = 2  # by gRPC, and by its handler, before a complete message can be refused
_CALL_BYTES = 256
_MAX_CONNECTIONS = 4_096


class _Connection:
    """One connection, and how far what it sent is accounted for."""

    __slots__ = ("charge", "complete", "name", "partial_bytes", "refused_at", "settled", "taken", "waiting")

    def __init__(self, name: str, charge: Charge) -> None:
        self.name = name
        self.charge = charge
        self.waiting: dict[IncomingCall, None] = {}
        self.settled = 0  # received bytes that belong to no incomplete message
        self.complete = 0  # bytes of messages completed since, with a generous share of framing
        self.taken = 0  # sent bytes that the peer had acknowledged by then
        self.partial_bytes = 0
        self.refused_at = float("-inf")

    def settle(self, traffic: Traffic, partial_bytes: int = 0) -> None:
        """Account for all bytes received but `partial_bytes`."""
        self.settled, self.taken = traffic.received - partial_bytes, traffic.acknowledged
        self.complete, self.partial_bytes = 0, partial_bytes

    def measure(self, traffic: Traffic) -> bool:
        """Measure the incomplete messages; return whether they have grown by much since the last time."""
        before = self.partial_bytes
        # Whoever takes much acknowledges it, which is received too.
        acknowledgements = (traffic.acknowledged - self.taken) // 256
        partial_bytes = traffic.received - self.settled - self.complete - acknowledgements
        self.settle(traffic, max(partial_bytes, 0))
        return self.partial_bytes > before + _GROWTH_BYTES


class IncomingCall:
    """A call with incoming messages, until `end`."""

    __slots__ = ("_connection", "_partial_messages", "refuse")

    def __init__(self, owner: PartialMessages, connection: _Connection, refuse: Callable[[str], None] | None) -> None:
        self._partial_messages = owner
        self._connection = connection
        self.refuse = refuse

    def add_message(self, size: int) -> None:
        """Account for a message that is complete."""
        # Framing takes less, with or without TLS, unless the sender uses tiny frames.
        connection = self._connection
        connection.complete += size + size // 128 + _MESSAGE_BYTES
        connection.partial_bytes = max(connection.partial_bytes - size, 0)
        connection.charge.resize(min(connection.charge.size, _COPIES_HELD * connection.partial_bytes))

    def end(self) -> None:
        """Expect no more messages of the call; again does nothing."""
        self._partial_messages.ended(self._connection, self)


class PartialMessages:
    """Watches over what connections have sent of messages, as long as some are on their way.

    Where there is no room for it, the calls of the connection that has sent most of all are refused, and the
    connection is ended if that does not help.
    """

    def __init__(self, budget: Budget, connections: Connections, freed: HeapTrimmer) -> None:
        self.refused = 0  # connections
        self._budget = budget
        self._connections = connections
        self._freed = freed
        self._connections_by_name: OrderedDict[str, _Connection] = OrderedDict()
        self._active: dict[str, _Connection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._logged, self._unlogged = float("-inf"), 0

    def begin(self, name: str, peer: Peer, headers: int, refuse: Callable[[str], None] | None = None) -> IncomingCall:
        """Expect messages of a call on the connection that gRPC calls `name`.

        `headers` are the bytes of its metadata. `refuse` ends the call, with a reason; one without can only be ended
        with its connection.
        """
        connection = self._connections_by_name.get(name)
        if connection is None:
            connection = self._connections_by_name[name] = _Connection(
                name, self._budget.charge(peer, 0, "half-sent messages")
            )
            self._evict_idle()
        else:
            self._connections_by_name.move_to_end(name)
            if not connection.waiting and (traffic := self._connections.traffic(name)) is not None:
                connection.settle(traffic)
        connection.complete += headers + _CALL_BYTES
        incoming = IncomingCall(self, connection, refuse)
        connection.waiting[incoming] = None
        self._active[name] = connection
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BUSY_INTERVAL_S, self._measure_all)
        return incoming

    def ended(self, connection: _Connection, incoming: IncomingCall) -> None:
        """See `IncomingCall.end`."""
        connection.waiting.pop(incoming, None)
        if not connection.waiting:
            self._freed.add(connection.charge.size)
            connection.charge.release()
            self._active.pop(connection.name, None)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in self._active.values():
            connection.charge.release()

    def _measure_all(self) -> None:
        self._timer = None
        if not self._active:
            return
        self._connections.find(self._active)
        grown = over = False
        for connection in self._active.values():
            traffic = self._connections.traffic(connection.name)
            if traffic is None:
                continue
            grown = connection.measure(traffic) or grown
            try:
                connection.charge.resize(_COPIES_HELD * connection.partial_bytes)
            except BudgetExceeded:
                over = True
        if over:
            self._refuse_largest()
        self._timer = asyncio.get_running_loop().call_later(
            _BUSY_INTERVAL_S if grown or over else _IDLE_INTERVAL_S, self._measure_all
        )

    def _refuse_largest(self) -> None:
        by_machine: dict[Peer, int] = {}
        for connection in self._active.values():
            peer = connection.charge.peer
            by_machine[peer] = by_machine.get(peer, 0) + connection.partial_bytes
        machine = max(by_machine, key=lambda peer: by_machine[peer])
        most = max((c for c in self._active.values() if c.charge.peer == machine), key=lambda c: c.partial_bytes)
        self._refuse(most)

    def _refuse(self, connection: _Connection) -> None:
        self.refused += 1
        partial_bytes, now = connection.partial_bytes, monotonic()
        refusable = [incoming.refuse for incoming in connection.waiting if incoming.refuse is not None]
        ends = not refusable or now - connection.refused_at < _REPEAT_S
        self._log(connection, "was ended" if ends else "had its calls refused", now)
        if ends:
            self._connections.close(connection.name)
        connection.refused_at = now
        for refuse in refusable:
            refuse(
                f"there is no room for more: this connection has sent {partial_bytes} bytes of messages not complete"
            )
        # gRPC drops what it had of them.
        connection.settled += partial_bytes
        connection.partial_bytes = 0
        connection.charge.release()
        self._freed.add(partial_bytes)

    def _log(self, connection: _Connection, how: str, now: float) -> None:
        self._unlogged += 1
        if now - self._logged < _LOG_INTERVAL_S:
            return
        _log.warning(
            "connection of %s %s: it had sent %d bytes of messages that were not complete, and there was no room; "
            "%d such since the last line of this kind",
            printable(connection.name),
            printable(how),
            connection.partial_bytes,
            self._unlogged,
        )
        self._logged, self._unlogged = now, 0

    def _evict_idle(self) -> None:
        while len(self._connections_by_name) > _MAX_CONNECTIONS:
            name = next((name for name, known in self._connections_by_name.items() if not known.waiting), None)
            if name is None:
                return
            del self._connections_by_name[name]
