"""Transport over gRPC: to Unix sockets, TCP and TLS, and to any peer that speaks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from grpc import aio

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.rpc import addresses
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES, listen
from snakepit_otel.rpc.client_call import Peer
from snakepit_otel.rpc.grpc_client_call import GrpcClientCall
from snakepit_otel.rpc.grpc_factories import aio_channel, aio_server, blocking_channel
from snakepit_otel.rpc.grpc_server_interceptors import ServerInterceptor
from snakepit_otel.rpc.grpc_status import rpc_error
from snakepit_otel.rpc.keepalive import CALLER
from snakepit_otel.rpc.method import CANCELLED, GRPC, Method, error_text, method_of
from snakepit_otel.rpc.services import Handler, Methods
from snakepit_otel.rpc.status import ConnectionClosed, RpcError, StatusCode
from snakepit_otel.rpc.tls import Tls
from snakepit_otel.rpc.transports.base import EOF, Dialogue, Metadata
from snakepit_otel.telemetry import _switch, outgoing

_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


class GrpcTransport:
    """Makes connections and listeners for `unix:PATH`, `HOST:PORT` and gRPC's other targets."""

    def serves(self, address: str) -> bool:
        """See `Transport`."""
        return True

    def connect(
        self,
        address: str,
        services: Iterable[Methods],
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        credentials: grpc.ChannelCredentials | None = None,
        keepalive: bool = False,
    ) -> GrpcConnection:
        """See `Transport`."""
        channel_options = [*addresses.options(max_message_bytes), *(CALLER if keepalive else ())]
        channel = aio_channel(address, credentials=credentials, options=channel_options)
        return GrpcConnection(channel, services, Peer(address))

    def connect_blocking(
        self, address: str, services: Iterable[Methods], *, max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> GrpcBlockingConnection:
        """See `Transport`."""
        channel = blocking_channel(address, options=addresses.options(max_message_bytes))
        return GrpcBlockingConnection(channel, services, Peer(address))

    def listen(
        self,
        address: str,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: Tls | None = None,
        insecure: bool = False,
        trusted: bool = False,
        interceptors: Callable[[], Sequence[Any]] = tuple,
        options: Sequence[tuple[str, Any]] = (),
        replace: bool = False,
        new_charge: Callable[[], ByteCharge] | None = None,
        unread_timeout: float = 60.0,
    ) -> GrpcListener:
        """See `Transport`."""
        server = aio_server(
            interceptors=[ServerInterceptor(trusted=trusted), *interceptors()],
            # Of options with one name, the first one counts.
            options=[*(addresses.SHARED_PORT if replace else ()), *addresses.options(max_message_bytes), *options],
        )
        return GrpcListener(server, address, tls, insecure, replace=replace)


def _methods_of(channel: Any, services: Iterable[Methods]) -> dict[str, tuple[Any, Method]]:
    found = {}
    for method in (method for service in services for method in service.values()):
        kind = _KINDS[method.client_streams, method.server_streams]
        multicallable = getattr(channel, kind)(
            f"/{method.name}",
            request_serializer=method.write_request,
            response_deserializer=method.read_response,
            _registered_method=True,
        )
        found[method.name] = multicallable, method_of(method.name)
    return found


class _ClosedMethods(dict[str, tuple[Any, Method]]):
    """Methods of a connection that is closed: calls fail, and are recorded, as gRPC's own of a closed channel."""

    def __missing__(self, method: str) -> tuple[Any, Method]:
        return _refuse, method_of(method)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise aio.UsageError("the channel is closed")


class GrpcConnection:
    """Connection over an aio channel; its spans are made around calls, as interceptors cost an aio channel much."""

    def __init__(self, channel: aio.Channel, services: Iterable[Methods], peer: Peer | None = None) -> None:
        self.channel: aio.Channel | None = channel  # None once closed
        self._methods = _methods_of(channel, services)
        self._peer = peer

    @property
    def transport(self) -> str:
        """See `Connection`."""
        return GRPC

    async def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """See `Connection`."""
        multicallable, observed_method = self._methods[method]
        try:
            if not (observed and _switch.enabled):
                return await multicallable(request, timeout=timeout, metadata=metadata)
            with GrpcClientCall(observed_method, self._peer):
                return await multicallable(request, timeout=timeout, metadata=outgoing(metadata))
        except aio.AioRpcError as error:
            raise rpc_error(error) from None
        except aio.UsageError:
            raise ConnectionClosed from None

    async def stream(
        self,
        method: str,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """See `Connection`."""
        multicallable, observed_method = self._methods[method]
        try:
            if not _switch.enabled:
                await _read_all(multicallable(request, timeout=timeout, metadata=metadata), take)
                return
            call = GrpcClientCall(observed_method, self._peer)
            with call:

                async def take_observed(message: Any) -> None:
                    try:
                        await take(message)
                    except BaseException as error:
                        # Not the call's failure: it is cancelled here, as by a reader who leaves.
                        call.note(CANCELLED, error_text(error))
                        raise

                await _read_all(multicallable(request, timeout=timeout, metadata=outgoing(metadata)), take_observed)
        except aio.AioRpcError as error:
            raise rpc_error(error) from None
        except aio.UsageError:
            raise ConnectionClosed from None

    async def upload(self, method: str, messages: Iterable[Any]) -> Any:
        """See `Connection`."""

        async def each() -> AsyncIterator[Any]:
            for message in messages:
                yield message

        return await self.call(method, each())

    def bidirectional(self, method: str, metadata: Metadata | None = None) -> Dialogue:
        """See `Connection`."""
        return _Dialogue(self._methods[method][0](metadata=metadata))

    def connect(self) -> None:
        """See `Connection`."""
        self._open_channel().get_state(try_to_connect=True)

    async def ready(self) -> None:
        """See `Connection`."""
        await self._open_channel().channel_ready()

    async def close(self) -> None:
        """See `Connection`."""
        # Whoever keeps the closed connection does not keep the channel, which holds a descriptor of its socket.
        channel, self.channel, self._methods = self.channel, None, _ClosedMethods()
        if channel is not None:
            await channel.close()

    def _open_channel(self) -> aio.Channel:
        if self.channel is None:
            raise ConnectionClosed
        return self.channel


class GrpcBlockingConnection:
    """Connection over a blocking channel; see `BlockingConnection`."""

    def __init__(self, channel: grpc.Channel, services: Iterable[Methods], peer: Peer | None = None) -> None:
        self.channel = channel
        self._methods = _methods_of(channel, services)
        self._peer = peer

    def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """See `BlockingConnection`."""
        multicallable, observed_method = self._methods[method]
        try:
            if not (observed and _switch.enabled):
                return multicallable(request, timeout=timeout, metadata=metadata)
            with GrpcClientCall(observed_method, self._peer):
                return multicallable(request, timeout=timeout, metadata=outgoing(metadata))
        except grpc.RpcError as error:
            raise rpc_error(error) from None

    def stub(self, service: Callable[[Any], Any]) -> Any:
        """See `BlockingConnection`."""
        return service(self.channel)

    def connect(self) -> None:
        """See `BlockingConnection`."""
        self.channel.subscribe(_ignore, try_to_connect=True)
        self.channel.unsubscribe(_ignore)

    def close(self) -> None:
        """See `BlockingConnection`."""
        self.channel.close()


class GrpcListener:
    """Server of gRPC's asyncio at one address; see `Listener`."""

    def __init__(
        self, server: aio.Server, address: str, tls: Tls | None, insecure: bool, *, replace: bool = False
    ) -> None:
        self._server, self._address, self._tls, self._insecure = server, address, tls, insecure
        self._replace = replace

    def add(self, handlers: Iterable[Handler]) -> None:
        """See `Listener`."""
        add_handlers(self._server, handlers)

    def bind(self) -> str:
        """See `Listener`."""
        return listen(self._server, self._address, tls=self._tls, insecure=self._insecure, replace=self._replace)

    async def start(self) -> None:
        """See `Listener`."""
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        """See `Listener`."""
        await self._server.stop(grace)


def add_handlers(server: aio.Server, handlers: Iterable[Handler]) -> None:
    """Have an aio server serve the calls of these methods."""
    for handler in handlers:
        method = handler.method
        kind = _KINDS[method.client_streams, method.server_streams]
        serve = _reading(handler.serve) if method.client_streams and method.server_streams else handler.serve
        build = getattr(grpc, f"{kind}_rpc_method_handler")
        made = {method.name.rpartition("/")[2]: build(serve, method.read_request, method.write_response)}
        service = method.name.rpartition("/")[0]
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))
        server.add_registered_method_handlers(service, made)


def _reading(serve: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def behaviour(requests: Any, context: Any) -> Any:
        return await serve(requests, _ReadingContext(context))

    return behaviour


class _ReadingContext:
    """gRPC's context, with the end of a stream as all transports have it."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        message = await self._context.read()
        return EOF if message is aio.EOF else message


class _Dialogue:
    """See `Dialogue`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def read(self) -> Any:
        try:
            message = await self._call.read()
        except aio.AioRpcError as error:
            raise rpc_error(error) from None
        return EOF if message is aio.EOF else message

    async def write(self, message: Any) -> None:
        with _as_rpc_error():
            await self._call.write(message)

    async def done_writing(self) -> None:
        with _as_rpc_error():
            await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()

    def done(self) -> bool:
        ended: bool = self._call.done()
        return ended


@contextmanager
def _as_rpc_error() -> Iterator[None]:
    try:
        yield
    except aio.AioRpcError as error:
        raise rpc_error(error) from None
    except asyncio.InvalidStateError:
        # A write after the end of the call, whose status the reading has.
        raise RpcError(StatusCode.CANCELLED, "the call has ended") from None


async def _read_all(stream: Any, take: Callable[[Any], Awaitable[None]]) -> None:
    """Pass each message to `take`; cancelled, cancel the stream: a cancelled read would leak its memory in gRPC."""
    reading, left = True, False

    async def pump() -> None:
        nonlocal reading
        async for message in stream:
            if left:
                return
            reading = False
            await take(message)
            reading = True

    pumping = asyncio.ensure_future(pump())
    try:
        await asyncio.shield(pumping)
    except asyncio.CancelledError:
        left = True
        stream.cancel()
        if not reading:
            pumping.cancel()
        await asyncio.wait([pumping])
        if not pumping.cancelled():
            # Retrieved, or asyncio would log it.
            pumping.exception()
        raise
    finally:
        stream.cancel()


def _ignore(_: grpc.ChannelConnectivity) -> None:
    """Do nothing: a blocking channel connects when its state is subscribed to."""
