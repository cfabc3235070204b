"""Transport between processes of one machine: ttrpc's frames over a Unix socket, with extensions.

ttrpc (containerd's) is protobuf services over local sockets without HTTP/2. Its frames carry calls, answers and
streams; what it lacks (cancellation, flow control, messages in parts, pings) are frame types of our own, which both
ends use once they have exchanged hellos. `docs/local-transport.md` has all of them.
"""

from snakepit_otel.rpc.transports.local.transport import LocalTransport

__all__ = ["LocalTransport"]
