"""Base class for adapters of the threaded server."""

import functools
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from .base_adapter import BaseAdapter, ToolMetadata, tool

__all__ = ["BaseAdapter", "RequestTracker", "ThreadLocalStorage", "ThreadSafeAdapter", "ToolMetadata", "tool"]


class ThreadLocalStorage:
    """Values of which each thread has its own."""

    def __init__(self):
        self._own = threading.local()

    def get(self, key: str, default=None):
        return vars(self._own).get(key, default)

    def set(self, key: str, value: Any):
        vars(self._own)[key] = value

    def delete(self, key: str):
        vars(self._own).pop(key, None)

    def clear(self):
        vars(self._own).clear()


class RequestTracker:
    """Counts requests by thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.total_requests = 0
        self.requests_by_thread, self.active_requests = Counter(), Counter()

    def start_request(self, thread_id: int | None = None) -> int:
        thread = thread_id or threading.get_ident()
        with self.lock:
            self.requests_by_thread[thread] += 1
            self.active_requests[thread] += 1
            self.total_requests += 1
            return self.total_requests

    def end_request(self, thread_id: int | None = None):
        with self.lock:
            self.active_requests -= Counter([thread_id or threading.get_ident()])

    def get_stats(self) -> dict:
        with self.lock:
            seen, active, total = len(self.requests_by_thread), self.active_requests, self.total_requests
            now = {"active_threads": len(+active), "total_active_requests": active.total()}
            return {"total_requests": total, "threads_seen": seen, **now}


def thread_safe_method(func: Callable) -> Callable:
    """Count the calls of a method of a thread-safe adapter."""

    @functools.wraps(func)
    def counted(adapter, *args, **kwargs):
        if isinstance(adapter, ThreadSafeAdapter):
            with adapter.track_request():
                return func(adapter, *args, **kwargs)
        return func(adapter, *args, **kwargs)

    counted.__thread_safe__ = True
    return counted


class ThreadSafeAdapter(BaseAdapter):
    """An adapter that says it may run in several threads."""

    __thread_safe__ = True

    def __init__(self):
        super().__init__()
        self._alone, self._own, self._requests = threading.RLock(), ThreadLocalStorage(), RequestTracker()

    @contextmanager
    def acquire_lock(self):
        with self._alone:
            yield

    def get_thread_local(self, key: str, default=None) -> Any:
        return self._own.get(key, default)

    def set_thread_local(self, key: str, value: Any):
        self._own.set(key, value)

    def clear_thread_local(self, key: str | None = None):
        self._own.clear() if key is None else self._own.delete(key)

    def get_stats(self) -> dict:
        about = {"adapter_class": type(self).__name__, "thread_safe": self.__thread_safe__}
        return {**about, "tracker": self._requests.get_stats()}

    @contextmanager
    def track_request(self, request_id: str | None = None):
        number = self._requests.start_request()
        try:
            yield number
        finally:
            self._requests.end_request()


def require_thread_safe(func: Callable) -> Callable:
    """Refuse adapters that do not say they are thread-safe."""

    @functools.wraps(func)
    def guarded(adapter, *args, **kwargs):
        if not validate_thread_safety(type(adapter)):
            raise ValueError(f"{type(adapter).__name__} does not say that it is thread-safe")
        return func(adapter, *args, **kwargs)

    return guarded


def validate_thread_safety(adapter_class: type) -> bool:
    return getattr(adapter_class, "__thread_safe__", False) is True
