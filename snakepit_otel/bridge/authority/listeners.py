"""Servers that listen for callers at one address each, within limits."""

from __future__ import annotations

import logging

from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.authority.admission import AdmissionInterceptor
from snakepit_otel.bridge.authority.byte_budget import Budget
from snakepit_otel.bridge.authority.limits import LimitSettings
from snakepit_otel.rpc.addresses import listen, only_known_callers, options, split
from snakepit_otel.rpc.keepalive import LISTENER
from snakepit_otel.rpc.tls import Tls
from snakepit_otel.system.tcp_connections import Connections


class Listener:
    """A server for one address, whose callers are held to `limits`, and what is held for them to `budget`.

    `largest` is the size of the largest message. Callers that are `trusted` have their traces continued.
    """

    def __init__(
        self,
        address: str,
        limits: LimitSettings,
        budget: Budget,
        *,
        largest: int,
        tls: Tls | None = None,
        trusted: bool = False,
    ) -> None:
        self._address, self._tls = address, tls
        is_tcp, anonymous = not address.startswith("unix:"), not only_known_callers(address, tls)
        self._connections = Connections() if is_tcp else None
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_a_peer_that_left)
        self.admission = AdmissionInterceptor(
            budget,
            arrival_timeout=limits.arrival_timeout / 1000,
            unread_timeout=limits.unread_timeout / 1000,
            connections=self._connections,
        )
        self.server: aio.Server = rpc.aio_server(
            interceptors=[rpc.ServerInterceptor(trusted=trusted), self.admission],
            options=[
                *options(limits.largest_message(largest, anonymous=anonymous)),
                *LISTENER,
                *(limits.tcp_options(anonymous=anonymous) if is_tcp else ()),
            ],
        )

    async def start(self, *, insecure: bool = False) -> str:
        """Listen, and return the address to call by. Raises `ConfigurationError`; see `listen`."""
        bound = listen(self.server, self._address, tls=self._tls, insecure=insecure)
        if self._connections is not None:
            self._connections.port = split(bound)[1]
        await self.server.start()
        return bound

    async def stop(self, grace: float | None) -> None:
        """Let calls have `grace` seconds to end, and listen no more."""
        await self.server.stop(grace)
        self.admission.close()


def _is_not_of_a_peer_that_left(record: logging.LogRecord) -> bool:
    """Keep out what gRPC logs, with a traceback, of each answer whose caller has gone before it had it."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core")
