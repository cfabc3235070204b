"""Base class of the threaded server's adapters."""

import functools
from collections.abc import Callable

from .base_adapter import BaseAdapter


def thread_safe_method(func: Callable) -> Callable:
    """Mark a method of a thread-safe adapter, which keeps its tool's mark."""

    @functools.wraps(func)
    def marked(adapter, *args, **kwargs):
        return func(adapter, *args, **kwargs)

    return marked


class ThreadSafeAdapter(BaseAdapter):
    """An adapter that can run in several threads."""

    __thread_safe__ = True

    def __init__(self):
        super().__init__()
