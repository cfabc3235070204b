"""Server whose addresses this process takes over, as its admin service has it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple, Self

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.authority_services import ADMIN
from snakepit_otel.errors import HandOverRefused
from snakepit_otel.rpc import RpcError, StatusCode, transport_of
from snakepit_otel.system.file_ownership import callable_users, peer_of

_ANSWER_TIMEOUT_S = 10.0


class Offer(NamedTuple):
    """What a predecessor hands over."""

    pid: int
    listen: str  # `HOST:PORT` of callers on TCP; empty if there is none
    lost_sessions: int


class Predecessor:
    """A running authority at a Unix socket of this user. Its methods raise `HandOverRefused`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = transport_of(f"unix:{path}").connect(f"unix:{path}", (ADMIN,))

    @classmethod
    def at(cls, path: Path) -> Self | None:
        """Return the authority that listens at a path, if there is one. Raises `UnsafeSocket` for another user's."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except BlockingIOError:
                pass  # its queue is full
            except OSError:
                return None
            else:
                _, uid = peer_of(probe)
                if uid not in callable_users():
                    return None  # listening at the path fails with the reason
        return cls(path)

    async def offer(self) -> Offer:
        """Have it let this process take its addresses, for a while."""
        found = await self._call(listening=False)
        return Offer(found.pid, found.listen, found.sessions)

    async def stop(self) -> None:
        """Have it stop, since this process listens at its addresses by now."""
        await self._call(listening=True)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _call(self, *, listening: bool) -> pb.HandOverResponse:
        request = pb.HandOverRequest(pid=os.getpid(), listening=listening)
        try:
            response: pb.HandOverResponse = await self._connection.call(
                f"{methods.ADMIN}/HandOver", request, _ANSWER_TIMEOUT_S
            )
        except RpcError as error:
            why = error.details
            if error.code is StatusCode.UNIMPLEMENTED:
                why = "it is of a version that cannot hand over; stop it first"
            elif error.code is not StatusCode.FAILED_PRECONDITION:
                why = str(error)
            raise HandOverRefused(f"cannot take over from the server at unix:{self._path}: {why}") from None
        return response
