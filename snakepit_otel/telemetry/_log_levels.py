"""Levels of loggers: of the user's code, of this package, and of libraries."""

from __future__ import annotations

import logging
from collections.abc import Mapping

OURS = "snakepit_otel"
# Each logs much of its own at `info` or `debug`, which hides what the user's code logs.
LIBRARIES = (
    "asyncio", "boto3", "botocore", "filelock", "fsspec", "grpc", "h2", "hpack", "httpcore", "httpx", "matplotlib",
    "numba", "opentelemetry", "PIL", "redis", "requests", "s3transfer", "urllib3",
)  # fmt: skip


def set_levels(level: int, ours: int, each: Mapping[str, int]) -> None:
    """Set the level of all loggers, of this package's, and of single ones by name.

    Libraries that are known log warnings at least; above `CRITICAL` nothing is logged at all.
    """
    logging.getLogger().setLevel(level)
    logging.getLogger(OURS).setLevel(ours)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name, own in each.items():
        logging.getLogger(name).setLevel(own)
    logging.disable(logging.CRITICAL if level > logging.CRITICAL else logging.NOTSET)
