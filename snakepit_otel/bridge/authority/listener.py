"""Listener for callers at one address, within limits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from snakepit_otel.bridge.authority.byte_budget import Budget
from snakepit_otel.bridge.authority.limits import LimitSettings
from snakepit_otel.bridge.wire.peers import UNIX
from snakepit_otel.rpc.addresses import only_known_callers, split
from snakepit_otel.rpc.keepalive import LISTENER
from snakepit_otel.rpc.method import GRPC, LOCAL
from snakepit_otel.rpc.transports import LocalTransportName, transport_of
from snakepit_otel.system.tcp_connections import Connections

if TYPE_CHECKING:
    from snakepit_otel.bridge.authority.admission import AdmissionInterceptor
    from snakepit_otel.rpc.tls import Tls


class CallerListener:
    """A server for one address, with limits for its callers and a budget for the bytes held for them.

    Callers that are `trusted` have their traces continued. Services are added to its `server`. With `replace`, it takes
    the address of another server of this user.
    """

    def __init__(
        self,
        address: str,
        limits: LimitSettings,
        budget: Budget,
        *,
        max_message_bytes: int,
        tls: Tls | None = None,
        insecure: bool = False,
        trusted: bool = False,
        replace: bool = False,
        local_transport: LocalTransportName = "local",
    ) -> None:
        is_tcp, anonymous = not address.startswith("unix:"), not only_known_callers(address, tls)
        self._connections = Connections() if is_tcp else None
        self._limits, self._budget = limits, budget
        self.admission: AdmissionInterceptor | None = None
        self.transport = LOCAL if not is_tcp and local_transport == "local" else GRPC
        self.server = transport_of(address, local_transport).listen(
            address,
            max_message_bytes=limits.largest_message(max_message_bytes, anonymous=anonymous),
            tls=tls,
            insecure=insecure,
            trusted=trusted,
            interceptors=self._interceptors,
            options=[*LISTENER, *(limits.tcp_options(anonymous=anonymous) if is_tcp else ())],
            replace=replace,
            new_charge=lambda: budget.charge(UNIX, 0, "a call"),
            unread_timeout=limits.unread_timeout / 1000,
        )

    async def start(self) -> str:
        """Listen, and return the address to call by. Raises `ConfigurationError` for one that cannot be used."""
        bound = self.server.bind()
        if self._connections is not None:
            self._connections.port = split(bound)[1]
        await self.server.start()
        return bound

    async def stop(self, grace: float | None) -> None:
        """Let calls have `grace` seconds to end, and listen no more."""
        await self.server.stop(grace)
        if self.admission is not None:
            self.admission.close()

    def _interceptors(self) -> list[AdmissionInterceptor]:
        # Imported late: it takes gRPC along.
        from snakepit_otel.bridge.authority.admission import AdmissionInterceptor

        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_a_lost_caller)
        self.admission = AdmissionInterceptor(
            self._budget,
            arrival_timeout=self._limits.arrival_timeout / 1000,
            unread_timeout=self._limits.unread_timeout / 1000,
            connections=self._connections,
        )
        return [self.admission]


def _is_not_of_a_lost_caller(record: logging.LogRecord) -> bool:
    """Drop gRPC's log records, with traceback, of answers whose callers have gone."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core")
