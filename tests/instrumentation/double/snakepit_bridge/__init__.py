"""The package that upstream's workers and adapters import."""

from . import heartbeat, logging_config, session_context, zero_copy

__version__ = "2.0.0"

HeartbeatClient, HeartbeatConfig = heartbeat.HeartbeatClient, heartbeat.HeartbeatConfig
SessionContext, ZeroCopyRef = session_context.SessionContext, zero_copy.ZeroCopyRef
configure_logging, get_logger = logging_config.configure_logging, logging_config.get_logger
