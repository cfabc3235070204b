"""Base class of adapters that run requests at the same time."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from snakepit_otel.common.printable import printable

from .base_adapter import BaseAdapter, ToolMetadata, tool
from .logging_config import get_logger

__snakepit_otel__ = True

__all__ = [
    "BaseAdapter",
    "RequestTracker",
    "ThreadLocalStorage",
    "ThreadSafeAdapter",
    "ToolMetadata",
    "require_thread_safe",
    "thread_safe_method",
    "tool",
    "validate_thread_safety",
]

logger: logging.Logger = get_logger("snakepit_bridge.base_adapter_threaded")


class ThreadLocalStorage:
    """Values that each thread has for itself."""

    def __init__(self) -> None:
        self._storage = threading.local()

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of this thread."""
        return vars(self._storage).get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set a value for this thread."""
        vars(self._storage)[key] = value

    def delete(self, key: str) -> None:
        """Forget a value of this thread, if it is there."""
        vars(self._storage).pop(key, None)

    def clear(self) -> None:
        """Forget all values of this thread."""
        vars(self._storage).clear()


class RequestTracker:
    """Counts requests, by thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.total_requests = 0
        self.requests_by_thread: dict[int, int] = defaultdict(int)
        self.active_requests: dict[int, int] = defaultdict(int)

    def start_request(self, thread_id: int | None = None) -> int:
        """Count a request that begins, and return its number."""
        thread = threading.get_ident() if thread_id is None else thread_id
        with self.lock:
            self.total_requests += 1
            self.requests_by_thread[thread] += 1
            self.active_requests[thread] += 1
            return self.total_requests

    def end_request(self, thread_id: int | None = None) -> None:
        """Note that a request has ended."""
        thread = threading.get_ident() if thread_id is None else thread_id
        with self.lock:
            self.active_requests[thread] = max(self.active_requests[thread] - 1, 0)

    def get_stats(self) -> dict[str, int]:
        """Return the counts."""
        with self.lock:
            active = self.active_requests.values()
            return {
                "total_requests": self.total_requests,
                "active_threads": sum(count > 0 for count in active),
                "total_active_requests": sum(active),
                "threads_seen": len(self.requests_by_thread),
            }


def thread_safe_method(func: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a method as one that may run in several threads, and count its calls where the adapter does."""

    @functools.wraps(func)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracker = self._tracker if isinstance(self, ThreadSafeAdapter) else None
        if tracker is None:
            return func(self, *args, **kwargs)
        number, started = tracker.start_request(), time.perf_counter()
        try:
            return func(self, *args, **kwargs)
        except Exception:
            logger.exception("request %d of %s failed", number, printable(func.__name__))
            raise
        finally:
            tracker.end_request()
            logger.debug(
                "request %d of %s took %.3f s", number, printable(func.__name__), time.perf_counter() - started
            )

    counted.__thread_safe__ = True  # type: ignore[attr-defined]
    return counted


class ThreadSafeAdapter(BaseAdapter):
    """An adapter whose requests may run at the same time, each on an instance of its own."""

    __thread_safe__ = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._thread_local = ThreadLocalStorage()
        self._tracker = RequestTracker()

    @contextmanager
    def acquire_lock(self) -> Iterator[None]:
        """Hold the instance's lock."""
        with self._lock:
            yield

    def get_thread_local(self, key: str, default: Any = None) -> Any:
        """Return a value of this thread."""
        return self._thread_local.get(key, default)

    def set_thread_local(self, key: str, value: Any) -> None:
        """Set a value for this thread."""
        self._thread_local.set(key, value)

    def clear_thread_local(self, key: str | None = None) -> None:
        """Forget one value of this thread, or all."""
        if key is None:
            self._thread_local.clear()
        else:
            self._thread_local.delete(key)

    def get_stats(self) -> dict[str, Any]:
        """Return what is counted."""
        return {
            "adapter_class": type(self).__name__,
            "thread_safe": self.__thread_safe__,
            "tracker": self._tracker.get_stats(),
        }

    @contextmanager
    def track_request(self, request_id: str | None = None) -> Iterator[int]:
        """Count a block as a request."""
        number = self._tracker.start_request()
        try:
            yield number
        finally:
            self._tracker.end_request()


def require_thread_safe(func: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function refuse, by `ValueError`, adapters that do not say that they are thread-safe."""

    @functools.wraps(func)
    def checked(adapter: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(adapter, "__thread_safe__", False):
            raise ValueError(f"{type(adapter).__name__} is not thread-safe; if it is, set __thread_safe__ = True on it")
        return func(adapter, *args, **kwargs)

    return checked


def validate_thread_safety(adapter_class: type) -> bool:
    """Say whether an adapter class says that it is thread-safe."""
    return getattr(adapter_class, "__thread_safe__", False) is True
