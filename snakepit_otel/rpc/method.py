"""Methods as telemetry names them, with the attributes of their calls, by the RPC conventions."""

from __future__ import annotations

from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.telemetry import interned, names
from snakepit_otel.telemetry._exception_text import message_of
from snakepit_otel.telemetry._labels import OTHER

OK, CANCELLED, UNKNOWN = StatusCode.OK, StatusCode.CANCELLED, StatusCode.UNKNOWN
DEADLINE_EXCEEDED = StatusCode.DEADLINE_EXCEEDED
# Codes that are errors at the server; the others are errors at the caller only.
_SERVER_FAULTS = frozenset(
    {
        UNKNOWN,
        DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
# Streams that go on until their reader leaves: Elixir reads the events of its workers under a deadline of a few
# seconds, whose end is no error.
_OPEN_ENDED = frozenset({"snakepit.bridge.BridgeService/StreamTelemetry"})
_MAX_METHODS = 1_000
# Values of `rpc.system.name`.
GRPC, LOCAL = "grpc", "ttrpc"
MAX_NAME_CHARACTERS = 256
MAX_STATUS_CHARACTERS = 500


class Method:
    """A method by its full name, with its attribute sets: before the status is known, and by status."""

    __slots__ = ("by_status", "labels", "name", "ok", "server_faults")

    def __init__(self, name: str, system: str = GRPC) -> None:
        self.name = name
        known = {names.RPC_SYSTEM_NAME: system, names.RPC_METHOD: name}
        self.labels = interned(known)
        self.by_status = {code: interned({**known, names.RPC_RESPONSE_STATUS_CODE: code.name}) for code in StatusCode}
        self.ok = self.by_status[OK]
        self.server_faults = _SERVER_FAULTS - {DEADLINE_EXCEEDED} if name in _OPEN_ENDED else _SERVER_FAULTS


_methods: dict[str, dict[str | bytes, Method]] = {GRPC: {}, LOCAL: {}}
OTHER_METHOD = Method(OTHER)
_others = {GRPC: OTHER_METHOD, LOCAL: Method(OTHER, LOCAL)}


def method_of(name: str | bytes, system: str = GRPC) -> Method:
    """Return the method of a path, slash or not; `_OTHER` beyond 1 000 methods or 256 characters."""
    methods = _methods[system]
    found = methods.get(name)
    if found is None:
        if len(methods) >= _MAX_METHODS or len(name) > MAX_NAME_CHARACTERS:
            return _others[system]
        text = (name.decode(errors="replace") if isinstance(name, bytes) else name).lstrip("/")
        # Under the name as it was given, too, so that it is found in one look.
        found = methods[name] = methods[text] = methods.get(text) or Method(text, system)
    return found


def other_method(system: str) -> Method:
    """Return the method that stands for those that nobody serves."""
    return _others[system]


def error_text(error: BaseException | None) -> str:
    """Return the type and the message of an error, as the description of a status."""
    return "" if error is None else f"{type(error).__name__}: {message_of(error)}"
