"""Session backend in a SQLite file, for the authorities of one machine."""

from snakepit_otel.sessions.backends.sqlite.backend import SqliteBackend

__all__ = ["SqliteBackend"]
