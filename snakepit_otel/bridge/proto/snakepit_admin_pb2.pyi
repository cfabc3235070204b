from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionInfo(_message.Message):
    __slots__ = ("id", "ttl_seconds", "created_at", "idle_seconds", "expires_in_seconds", "metadata", "owner", "last_worker_id", "version", "memory_bytes")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LAST_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    ttl_seconds: float
    created_at: float
    idle_seconds: float
    expires_in_seconds: float
    metadata: _containers.ScalarMap[str, str]
    owner: str
    last_worker_id: str
    version: int
    memory_bytes: int
    def __init__(self, id: _Optional[str] = ..., ttl_seconds: _Optional[float] = ..., created_at: _Optional[float] = ..., idle_seconds: _Optional[float] = ..., expires_in_seconds: _Optional[float] = ..., metadata: _Optional[_Mapping[str, str]] = ..., owner: _Optional[str] = ..., last_worker_id: _Optional[str] = ..., version: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("after", "limit", "owner")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    owner: str
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionInfo]
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionInfo, _Mapping]]] = ...) -> None: ...

class ShowSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class StateEntry(_message.Message):
    __slots__ = ("key", "json", "version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    key: str
    json: bytes
    version: int
    def __init__(self, key: _Optional[str] = ..., json: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class ShowSessionResponse(_message.Message):
    __slots__ = ("session", "state")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    session: SessionInfo
    state: _containers.RepeatedCompositeFieldContainer[StateEntry]
    def __init__(self, session: _Optional[_Union[SessionInfo, _Mapping]] = ..., state: _Optional[_Iterable[_Union[StateEntry, _Mapping]]] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("created", "deleted", "pruned_ttl", "pruned_overflow", "rejected", "live", "memory_bytes", "max_sessions", "rejected_per_owner", "max_sessions_per_owner", "reported", "store", "store_is_away")
    CREATED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    PRUNED_TTL_FIELD_NUMBER: _ClassVar[int]
    PRUNED_OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_PER_OWNER_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_PER_OWNER_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    STORE_IS_AWAY_FIELD_NUMBER: _ClassVar[int]
    created: int
    deleted: int
    pruned_ttl: int
    pruned_overflow: int
    rejected: int
    live: int
    memory_bytes: int
    max_sessions: float
    rejected_per_owner: int
    max_sessions_per_owner: float
    reported: int
    store: str
    store_is_away: bool
    def __init__(self, created: _Optional[int] = ..., deleted: _Optional[int] = ..., pruned_ttl: _Optional[int] = ..., pruned_overflow: _Optional[int] = ..., rejected: _Optional[int] = ..., live: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., max_sessions: _Optional[float] = ..., rejected_per_owner: _Optional[int] = ..., max_sessions_per_owner: _Optional[float] = ..., reported: _Optional[int] = ..., store: _Optional[str] = ..., store_is_away: _Optional[bool] = ...) -> None: ...

class Patterns(_message.Message):
    __slots__ = ("patterns",)
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    patterns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, patterns: _Optional[_Iterable[str]] = ...) -> None: ...

class SetTelemetryRequest(_message.Message):
    __slots__ = ("level", "sampling", "allow", "deny")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    level: str
    sampling: float
    allow: Patterns
    deny: Patterns
    def __init__(self, level: _Optional[str] = ..., sampling: _Optional[float] = ..., allow: _Optional[_Union[Patterns, _Mapping]] = ..., deny: _Optional[_Union[Patterns, _Mapping]] = ...) -> None: ...

class SetTelemetryResponse(_message.Message):
    __slots__ = ("level", "sampling", "allow", "deny")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    level: str
    sampling: float
    allow: _containers.RepeatedScalarFieldContainer[str]
    deny: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, level: _Optional[str] = ..., sampling: _Optional[float] = ..., allow: _Optional[_Iterable[str]] = ..., deny: _Optional[_Iterable[str]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "run_id", "pid", "uptime_seconds", "stopping", "telemetry_level", "sessions", "pools", "tools", "strict_mode", "listeners")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    STRICT_MODE_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    version: str
    run_id: str
    pid: int
    uptime_seconds: float
    stopping: bool
    telemetry_level: str
    sessions: GetStatsResponse
    pools: _containers.RepeatedCompositeFieldContainer[PoolStatus]
    tools: _containers.RepeatedCompositeFieldContainer[ToolStatus]
    strict_mode: bool
    listeners: _containers.RepeatedCompositeFieldContainer[ListenerStatus]
    def __init__(self, version: _Optional[str] = ..., run_id: _Optional[str] = ..., pid: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., stopping: _Optional[bool] = ..., telemetry_level: _Optional[str] = ..., sessions: _Optional[_Union[GetStatsResponse, _Mapping]] = ..., pools: _Optional[_Iterable[_Union[PoolStatus, _Mapping]]] = ..., tools: _Optional[_Iterable[_Union[ToolStatus, _Mapping]]] = ..., strict_mode: _Optional[bool] = ..., listeners: _Optional[_Iterable[_Union[ListenerStatus, _Mapping]]] = ...) -> None: ...

class ListenerStatus(_message.Message):
    __slots__ = ("address", "transport")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    transport: str
    def __init__(self, address: _Optional[str] = ..., transport: _Optional[str] = ...) -> None: ...

class ToolStatus(_message.Message):
    __slots__ = ("name", "pool", "calls", "raised", "refused", "p50_seconds", "p95_seconds", "retried", "failed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P95_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    name: str
    pool: str
    calls: int
    raised: int
    refused: int
    p50_seconds: float
    p95_seconds: float
    retried: int
    failed: int
    def __init__(self, name: _Optional[str] = ..., pool: _Optional[str] = ..., calls: _Optional[int] = ..., raised: _Optional[int] = ..., refused: _Optional[int] = ..., p50_seconds: _Optional[float] = ..., p95_seconds: _Optional[float] = ..., retried: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class PoolStatus(_message.Message):
    __slots__ = ("name", "adapter", "profile", "affinity", "size", "spares", "concurrency", "ready_slots", "busy_slots", "queue_length", "queue_limit", "queue_oldest_seconds", "breaker", "breaker_retry_seconds", "start_blocked_seconds", "service_seconds", "answered", "failed", "rejected", "retried", "restarts", "workers", "raised")
    class RejectedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SPARES_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    READY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OLDEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    BREAKER_RETRY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    START_BLOCKED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    name: str
    adapter: str
    profile: str
    affinity: str
    size: int
    spares: int
    concurrency: int
    ready_slots: int
    busy_slots: int
    queue_length: int
    queue_limit: int
    queue_oldest_seconds: float
    breaker: str
    breaker_retry_seconds: float
    start_blocked_seconds: float
    service_seconds: float
    answered: int
    failed: int
    rejected: _containers.ScalarMap[str, int]
    retried: int
    restarts: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    raised: int
    def __init__(self, name: _Optional[str] = ..., adapter: _Optional[str] = ..., profile: _Optional[str] = ..., affinity: _Optional[str] = ..., size: _Optional[int] = ..., spares: _Optional[int] = ..., concurrency: _Optional[int] = ..., ready_slots: _Optional[int] = ..., busy_slots: _Optional[int] = ..., queue_length: _Optional[int] = ..., queue_limit: _Optional[int] = ..., queue_oldest_seconds: _Optional[float] = ..., breaker: _Optional[str] = ..., breaker_retry_seconds: _Optional[float] = ..., start_blocked_seconds: _Optional[float] = ..., service_seconds: _Optional[float] = ..., answered: _Optional[int] = ..., failed: _Optional[int] = ..., rejected: _Optional[_Mapping[str, int]] = ..., retried: _Optional[int] = ..., restarts: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., raised: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("id", "pid", "state", "active", "requests", "age_seconds", "memory_bytes", "heartbeat_age_seconds", "missed_heartbeats", "suspect", "slot", "transport")
    ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MISSED_HEARTBEATS_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    pid: int
    state: str
    active: int
    requests: int
    age_seconds: float
    memory_bytes: int
    heartbeat_age_seconds: float
    missed_heartbeats: int
    suspect: str
    slot: int
    transport: str
    def __init__(self, id: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[str] = ..., active: _Optional[int] = ..., requests: _Optional[int] = ..., age_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., heartbeat_age_seconds: _Optional[float] = ..., missed_heartbeats: _Optional[int] = ..., suspect: _Optional[str] = ..., slot: _Optional[int] = ..., transport: _Optional[str] = ...) -> None: ...

class RestartWorkersRequest(_message.Message):
    __slots__ = ("pool",)
    POOL_FIELD_NUMBER: _ClassVar[int]
    pool: str
    def __init__(self, pool: _Optional[str] = ...) -> None: ...

class Replacement(_message.Message):
    __slots__ = ("pool", "worker", "replacement", "failure", "remaining")
    POOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REPLACEMENT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    pool: str
    worker: str
    replacement: str
    failure: str
    remaining: int
    def __init__(self, pool: _Optional[str] = ..., worker: _Optional[str] = ..., replacement: _Optional[str] = ..., failure: _Optional[str] = ..., remaining: _Optional[int] = ...) -> None: ...

class ListToolsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ToolInfo(_message.Message):
    __slots__ = ("name", "pool", "adapter", "description", "signature", "schema", "streams", "idempotent")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    pool: str
    adapter: str
    description: str
    signature: str
    schema: bytes
    streams: bool
    idempotent: bool
    def __init__(self, name: _Optional[str] = ..., pool: _Optional[str] = ..., adapter: _Optional[str] = ..., description: _Optional[str] = ..., signature: _Optional[str] = ..., schema: _Optional[bytes] = ..., streams: _Optional[bool] = ..., idempotent: _Optional[bool] = ...) -> None: ...

class ListToolsResponse(_message.Message):
    __slots__ = ("tools",)
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    tools: _containers.RepeatedCompositeFieldContainer[ToolInfo]
    def __init__(self, tools: _Optional[_Iterable[_Union[ToolInfo, _Mapping]]] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class RequestInfo(_message.Message):
    __slots__ = ("id", "tool", "session_id", "pool", "state", "age_seconds", "worker_id", "deadline_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    tool: str
    session_id: str
    pool: str
    state: str
    age_seconds: float
    worker_id: str
    deadline_seconds: float
    def __init__(self, id: _Optional[str] = ..., tool: _Optional[str] = ..., session_id: _Optional[str] = ..., pool: _Optional[str] = ..., state: _Optional[str] = ..., age_seconds: _Optional[float] = ..., worker_id: _Optional[str] = ..., deadline_seconds: _Optional[float] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ("requests", "total")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RequestInfo]
    total: int
    def __init__(self, requests: _Optional[_Iterable[_Union[RequestInfo, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class CancelRequestRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelRequestResponse(_message.Message):
    __slots__ = ("cancelled",)
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    cancelled: bool
    def __init__(self, cancelled: _Optional[bool] = ...) -> None: ...

class GroupSessionsRequest(_message.Message):
    __slots__ = ("by", "limit")
    BY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    by: str
    limit: int
    def __init__(self, by: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class SessionGroup(_message.Message):
    __slots__ = ("name", "count", "memory_bytes", "oldest_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    memory_bytes: int
    oldest_seconds: float
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., oldest_seconds: _Optional[float] = ...) -> None: ...

class GroupSessionsResponse(_message.Message):
    __slots__ = ("groups", "total")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[SessionGroup]
    total: int
    def __init__(self, groups: _Optional[_Iterable[_Union[SessionGroup, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class DeleteSessionsRequest(_message.Message):
    __slots__ = ("owner", "dry_run")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    owner: str
    dry_run: bool
    def __init__(self, owner: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class DeleteSessionsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SetStrictModeRequest(_message.Message):
    __slots__ = ("strict_mode",)
    STRICT_MODE_FIELD_NUMBER: _ClassVar[int]
    strict_mode: bool
    def __init__(self, strict_mode: _Optional[bool] = ...) -> None: ...

class SetStrictModeResponse(_message.Message):
    __slots__ = ("strict_mode",)
    STRICT_MODE_FIELD_NUMBER: _ClassVar[int]
    strict_mode: bool
    def __init__(self, strict_mode: _Optional[bool] = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ("pid", "listening")
    PID_FIELD_NUMBER: _ClassVar[int]
    LISTENING_FIELD_NUMBER: _ClassVar[int]
    pid: int
    listening: bool
    def __init__(self, pid: _Optional[int] = ..., listening: _Optional[bool] = ...) -> None: ...

class HandOverResponse(_message.Message):
    __slots__ = ("pid", "listen", "sessions")
    PID_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    listen: str
    sessions: int
    def __init__(self, pid: _Optional[int] = ..., listen: _Optional[str] = ..., sessions: _Optional[int] = ...) -> None: ...
