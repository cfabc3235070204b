"""The full names of the bridge's methods."""

_SERVICE = "snakepit.bridge.BridgeService"
_BUFFERS = "snakepit_otel.buffers.BufferService"
_SUPERVISION = "snakepit_otel.supervision.SupervisionService"

PING = f"{_SERVICE}/Ping"
INITIALIZE_SESSION = f"{_SERVICE}/InitializeSession"
CLEANUP_SESSION = f"{_SERVICE}/CleanupSession"
GET_SESSION = f"{_SERVICE}/GetSession"
HEARTBEAT = f"{_SERVICE}/Heartbeat"
EXECUTE_TOOL = f"{_SERVICE}/ExecuteTool"
EXECUTE_STREAMING_TOOL = f"{_SERVICE}/ExecuteStreamingTool"
GET_EXPOSED_ELIXIR_TOOLS = f"{_SERVICE}/GetExposedElixirTools"
EXECUTE_ELIXIR_TOOL = f"{_SERVICE}/ExecuteElixirTool"
REGISTER_TOOLS = f"{_SERVICE}/RegisterTools"
STREAM_TELEMETRY = f"{_SERVICE}/StreamTelemetry"

READ_BUFFER = f"{_BUFFERS}/Read"
WRITE_BUFFER = f"{_BUFFERS}/Write"

HOLD = "snakepit_otel.leases.LeaseService/Hold"

AWAIT_END = f"{_SUPERVISION}/AwaitEnd"
SET_TELEMETRY = f"{_SUPERVISION}/SetTelemetry"

ADMIN = "snakepit_otel.admin.AdminService"  # served on the authority's Unix socket only

CALL_SITE_HEADER = "x-snakepit-call-site"  # of the creator of a session, for the strict-mode report
TTL_HEADER = "x-snakepit-session-ttl"  # seconds; InitializeSession has no field for it
OWNER_HEADER = "x-snakepit-session-owner"
SESSION_HEADERS = frozenset({CALL_SITE_HEADER, TTL_HEADER, OWNER_HEADER})  # passed on by workers
TIMEOUT_HEADER = "x-snakepit-timeout"  # seconds of the request; the call's own deadline is later, for the answer
ERRORS_HEADER = "x-snakepit-errors"  # `json` of a caller that reads errors of sessions as JSON, and not as upstream's
WORKER_HEADER = "x-snakepit-worker"  # id of a calling worker of ours
FENCING_HEADER = "x-snakepit-worker-token"
CORRELATION_HEADER = "x-snakepit-correlation-id"  # upstream's own
REQUEST_HEADER = "x-snakepit-request-id"  # goes before `REQUEST_ID`, for a large request, which is passed on as it came
REQUEST_ID = "snakepit_request_id"  # of messages' metadata: the request that a call or call-back belongs to
REFERENCES = "snakepit_references"  # of messages' metadata: see `reference_list`
ATTRIBUTES = "snakepit_attributes"  # of a worker's answers: what the tool has set on its request's span
REFERENCES_HEADER = "x-snakepit-references"  # goes before `REFERENCES`, for a large request
OWNER = "snakepit_owner"  # of a request's metadata: the owner of a session that the request creates
STRICT_MODE = "snakepit_strict_mode"  # of a response's metadata: `true` where call sites of creators are reported
POOL = "snakepit_pool"  # of a request's metadata
CREATE_SESSION = "snakepit_create_session"  # of a request's metadata: `false` if its session must be live already
IDEMPOTENT = "snakepit_idempotent"  # of a request's metadata: `true` if it may run again after the loss of its worker
RETRY = "snakepit_retry"  # of a request's metadata, and of the context of an error after which it may run again
