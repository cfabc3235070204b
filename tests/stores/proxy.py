"""A TCP proxy between a client and a server that delays, cuts and swallows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Proxy:
    """Passes bytes on; `delay` is in seconds, for each answer.

    `on_reply` is called with each piece of an answer, and returns what is passed on of it: all, or nothing; where it
    returns None the connection is cut, and the piece is lost.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.delay = 0.0
        self.on_reply: Callable[[bytes], bytes | None] = bytes
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The URL of the server by way of the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, at the same port as before if it was started before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self._writers.add(writer)
        try:
            target = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
        else:
            self._writers.add(target[1])
            ends = [
                asyncio.ensure_future(self._requests(reader, target[1])),
                asyncio.ensure_future(self._replies(target[0], writer)),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)
            for one in (writer, target[1]):
                one.transport.abort()
            self._writers.discard(target[1])
        finally:
            self._writers.discard(writer)
            self.open -= 1
            self._tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(1 << 16):
                if self.delay:
                    await asyncio.sleep(self.delay)
                passed = self.on_reply(piece)
                if passed is None:
                    return
                writer.write(passed)
                await writer.drain()
