"""Identity of a call's peer, as far as limits are concerned."""

from __future__ import annotations

from typing import NamedTuple

from snakepit_otel.rpc.transports.base import CallContext


class Peer(NamedTuple):
    """A peer to which bytes are charged."""

    name: str  # a machine's address, the name in a client's certificate, or `unix`
    is_known: bool  # by the user's own socket, or by a certificate


UNIX = Peer("unix", is_known=True)  # callers on the Unix socket, which only their user can open, and in this process


def peer_of(context: CallContext) -> Peer:
    """Return who calls: on TCP without a client's certificate, all of a machine are one."""
    peer = context.peer()
    if peer.startswith("unix:"):
        return UNIX
    identity = next(iter(context.peer_identities() or ()), None)
    if identity is not None:
        return Peer(identity.decode(errors="replace"), is_known=True)
    return Peer(peer.partition(":")[2].rpartition(":")[0] or peer, is_known=False)
