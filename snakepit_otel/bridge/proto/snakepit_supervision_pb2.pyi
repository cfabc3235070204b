from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class AwaitEndRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class AwaitEndResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetTelemetryRequest(_message.Message):
    __slots__ = ("level", "sampling", "allow", "deny", "strict_mode")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    STRICT_MODE_FIELD_NUMBER: _ClassVar[int]
    level: str
    sampling: float
    allow: _containers.RepeatedScalarFieldContainer[str]
    deny: _containers.RepeatedScalarFieldContainer[str]
    strict_mode: bool
    def __init__(self, level: _Optional[str] = ..., sampling: _Optional[float] = ..., allow: _Optional[_Iterable[str]] = ..., deny: _Optional[_Iterable[str]] = ..., strict_mode: _Optional[bool] = ...) -> None: ...

class SetTelemetryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
