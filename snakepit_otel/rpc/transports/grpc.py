"""Transport over gRPC: to Unix sockets, TCP and TLS, and to any peer that speaks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc import aio

from snakepit_otel.rpc import addresses
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES, listen
from snakepit_otel.rpc.client_call import ClientCall, Peer
from snakepit_otel.rpc.grpc_factories import aio_channel, aio_server, blocking_channel
from snakepit_otel.rpc.keepalive import CALLER
from snakepit_otel.rpc.local_sockets import without_descriptors
from snakepit_otel.rpc.method import CANCELLED, Method, error_text, method_of
from snakepit_otel.rpc.server_interceptors import ServerInterceptor
from snakepit_otel.rpc.status import ConnectionClosed, RpcError, StatusCode
from snakepit_otel.rpc.tls import Tls
from snakepit_otel.rpc.transports.base import Metadata, Service
from snakepit_otel.telemetry import _switch, outgoing


class GrpcTransport:
    """Makes connections and listeners for `unix:PATH`, `HOST:PORT` and gRPC's other targets."""

    def serves(self, address: str) -> bool:
        """See `Transport`."""
        return True

    def connect(
        self,
        address: str,
        services: Iterable[Service],
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
        self, address: str, services: Iterable[Service], *, max_message_bytes: int = MAX_MESSAGE_BYTES
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
        interceptors: Sequence[Any] = (),
        options: Sequence[tuple[str, Any]] = (),
        replace: bool = False,
    ) -> GrpcListener:
        """See `Transport`."""
        server = aio_server(
            interceptors=[ServerInterceptor(trusted=trusted), *interceptors],
            # Of options with one name, the first one counts.
            options=[*(addresses.SHARED_PORT if replace else ()), *addresses.options(max_message_bytes), *options],
        )
        return GrpcListener(server, address, tls, insecure, replace=replace)


class _MethodRecorder:
    """Stands for a channel while client classes are made, and records their multicallables by method."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.methods: dict[str, tuple[Any, Method]] = {}

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        make = getattr(self._channel, kind)

        def record(path: str, *arguments: Any, **options: Any) -> Any:
            name = path.removeprefix("/")
            multicallable = make(path, *arguments, **options)
            self.methods[name] = multicallable, method_of(name)
            return multicallable

        return record


def _methods_of(channel: Any, services: Iterable[Service]) -> dict[str, tuple[Any, Method]]:
    recorder = _MethodRecorder(channel)
    for service in services:
        service(recorder)
    return recorder.methods


class _ClosedMethods(dict[str, tuple[Any, Method]]):
    """Methods of a connection that is closed: calls fail, and are recorded, as gRPC's own of a closed channel."""

    def __missing__(self, method: str) -> tuple[Any, Method]:
        return _refuse, method_of(method)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise aio.UsageError("the channel is closed")


class GrpcConnection:
    """Connection over an aio channel; its spans are made around calls, as interceptors cost an aio channel much."""

    def __init__(self, channel: aio.Channel, services: Iterable[Service], peer: Peer | None = None) -> None:
        self.channel: aio.Channel | None = channel  # None once closed
        self._methods = _methods_of(channel, services)
        self._peer = peer

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
            with ClientCall(observed_method, self._peer):
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
            call = ClientCall(observed_method, self._peer)
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

    def bidirectional(self, method: str, metadata: Metadata | None = None) -> Any:
        """See `Connection`."""
        return self._methods[method][0](metadata=metadata)

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

    def __init__(self, channel: grpc.Channel, services: Iterable[Service], peer: Peer | None = None) -> None:
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
            with ClientCall(observed_method, self._peer):
                return multicallable(request, timeout=timeout, metadata=outgoing(metadata))
        except grpc.RpcError as error:
            raise rpc_error(error) from None

    def stub(self, service: Service) -> Any:
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

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See `Listener`."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """See `Listener`."""
        self._server.add_registered_method_handlers(service, handlers)

    def bind(self) -> str:
        """See `Listener`."""
        return listen(self._server, self._address, tls=self._tls, insecure=self._insecure, replace=self._replace)

    async def start(self) -> None:
        """See `Listener`."""
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        """See `Listener`."""
        await self._server.stop(grace)


_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


def grpc_code(code: StatusCode) -> grpc.StatusCode:
    """Return gRPC's form of a status code."""
    return _GRPC_CODES[code.value]


def rpc_error(error: grpc.RpcError) -> RpcError:
    """Return the neutral form of an error of gRPC's."""
    code: grpc.StatusCode = error.code()
    return RpcError(StatusCode(code.value[0]), without_descriptors(error.details() or ""))


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
