"""Bodies that arrive in parts, and who takes frames."""

from __future__ import annotations

from typing import Final, Protocol

from snakepit_otel.rpc.transports.local.frames import MIN_PART_BYTES, MORE, MalformedFrame

_MAX_BODIES: Final = 10_000  # of which a part has come


class Receiver(Protocol):
    """Side of a connection: takes its frames, and learns of its end."""

    def on_frame(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        """Take a frame, all parts of it joined. Raises `MalformedFrame`, which ends the connection."""

    def on_part(self, kind: int, stream: int, size: int) -> bool:
        """Return whether a further part of a body, of which `size` bytes are there by now, is kept."""

    def on_lost(self, why: str) -> None:
        """The connection has ended; called once."""

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended."""


class ArrivingBodies:
    """Bodies of one connection of which a part has come; `bodies` are by stream."""

    def __init__(self) -> None:
        self.bodies: dict[int, _Body] = {}

    def take(self, kind: int, stream: int, flags: int, part: bytes, receiver: Receiver) -> None:
        """Keep a part, or pass the body on with its last one. Raises `MalformedFrame`."""
        if flags & MORE and len(part) < MIN_PART_BYTES:
            raise MalformedFrame(f"a part of {len(part)} bytes, of at least {MIN_PART_BYTES}")
        whole = self.bodies.get(stream)
        if whole is None and len(self.bodies) >= _MAX_BODIES:
            raise MalformedFrame(f"parts of more than {_MAX_BODIES} bodies")
        if whole is None or whole.kind != kind:
            # Another type: the peer has given up the body before.
            whole = self.bodies[stream] = _Body(kind)
        whole.size += len(part)
        if whole.is_kept:
            whole.parts.append(part)
            if not receiver.on_part(kind, stream, whole.size):
                whole.is_kept = False
                whole.parts.clear()
        if not flags & MORE:
            del self.bodies[stream]
            if whole.is_kept:
                receiver.on_frame(kind, stream, flags, b"".join(whole.parts))

    def drop(self, stream: int) -> None:
        """Forget a body, if there is one."""
        self.bodies.pop(stream, None)

    def clear(self) -> None:
        """Forget all."""
        self.bodies.clear()


class _Body:
    """Body of which a part has come."""

    __slots__ = ("is_kept", "kind", "parts", "size")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.parts: list[bytes] = []
        self.size = 0
        self.is_kept = True
