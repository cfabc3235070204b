"""The full names of the bridge's methods."""

_SERVICE = "snakepit.bridge.BridgeService"

PING = f"{_SERVICE}/Ping"
INITIALIZE_SESSION = f"{_SERVICE}/InitializeSession"
CLEANUP_SESSION = f"{_SERVICE}/CleanupSession"
GET_SESSION = f"{_SERVICE}/GetSession"
HEARTBEAT = f"{_SERVICE}/Heartbeat"
EXECUTE_TOOL = f"{_SERVICE}/ExecuteTool"
EXECUTE_STREAMING_TOOL = f"{_SERVICE}/ExecuteStreamingTool"
GET_EXPOSED_ELIXIR_TOOLS = f"{_SERVICE}/GetExposedElixirTools"
EXECUTE_ELIXIR_TOOL = f"{_SERVICE}/ExecuteElixirTool"

ADMIN = "snakepit_otel.admin.AdminService"
"""The service that only the authority's Unix socket offers."""

CALL_SITE_HEADER = "x-snakepit-call-site"
"""Who asks for a session, for the strict-mode report."""
TTL_HEADER = "x-snakepit-session-ttl"
"""A session's TTL in seconds, for which InitializeSession has no field."""
OWNER_HEADER = "x-snakepit-session-owner"
"""In whose name a session is created."""
SESSION_HEADERS = frozenset({CALL_SITE_HEADER, TTL_HEADER, OWNER_HEADER})
"""What a worker passes on with a session call."""
CORRELATION_HEADER = "x-snakepit-correlation-id"
"""Upstream's own correlation id."""
CONTROL_ONLY_HEADER = "x-snakepit-telemetry-control-only"
"""`true` from a listener that wants no events of a worker, but to be told when its controls are obeyed."""
