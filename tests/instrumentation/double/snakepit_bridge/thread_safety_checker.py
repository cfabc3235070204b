"""A counter of which threads enter which method, for adapters under development."""

import functools
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class ThreadSafetyChecker:
    """Warns of methods that several threads enter; raises if it is strict."""

    def __init__(self, enabled: bool = True, strict_mode: bool = False):
        self.enabled = enabled
        self.strict_mode = strict_mode
        self.access_map: dict[str, set[int]] = defaultdict(set)
        self.warnings_issued: set[str] = set()
        self._lock = threading.Lock()

    def check_method_access(self, method_name: str, caller_frame: Any | None = None):
        if not self.enabled:
            return
        with self._lock:
            threads = self.access_map[method_name]
            threads.add(threading.get_ident())
            news = len(threads) > 1 and method_name not in self.warnings_issued
            if news:
                self.warnings_issued.add(method_name)
        if news:
            words = f"{method_name} is entered by {len(threads)} threads"
            if self.strict_mode:
                raise RuntimeError(words)
            warnings.warn(words, RuntimeWarning, stacklevel=3)

    def get_report(self) -> dict:
        with self._lock:
            shared = {name: len(threads) for name, threads in self.access_map.items() if len(threads) > 1}
            return {"enabled": self.enabled, "strict_mode": self.strict_mode, "concurrent_accesses": shared}

    def reset(self):
        with self._lock:
            self.access_map.clear()
            self.warnings_issued.clear()

    def __enter__(self):
        self.reset()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        return False


_checker = ThreadSafetyChecker(enabled=False)


def enable_checking(strict_mode: bool = False):
    global _checker
    _checker = ThreadSafetyChecker(enabled=True, strict_mode=strict_mode)


def disable_checking():
    _checker.enabled = False


def get_global_checker() -> ThreadSafetyChecker:
    return _checker


def check_thread_safe(func: Callable) -> Callable:
    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        _checker.check_method_access(func.__name__)
        return func(*args, **kwargs)

    return wrapper


def validate_adapter_thread_safety(adapter_class: type) -> bool:
    return getattr(adapter_class, "__thread_safe__", False) is True
