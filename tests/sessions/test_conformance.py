"""Conformance of the backend in memory, and of one that behaves as a remote one."""

from __future__ import annotations

from examples.dict_backend import DictBackend
from snakepit_otel.sessions import Limits, MemoryBackend
from snakepit_otel.sessions.backends import Clock, SessionBackend
from snakepit_otel.testing.backends import BackendTests
from tests.sessions.remote_backend import RemoteBackend


class TestMemory(BackendTests):
    """Sessions in the memory of this process."""

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        return MemoryBackend(limits, clock)


class TestRemote(BackendTests):
    """Sessions of a server, whose replies are copies and come later."""

    share_of_examples = 0.6

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        return RemoteBackend(limits, clock)

    def make_second(self, first: SessionBackend, limits: Limits) -> SessionBackend:
        return RemoteBackend(limits, server=first.server)


class TestExample(BackendTests):
    """The example of the page on backends."""

    share_of_examples = 0.1

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        return DictBackend(limits, clock=clock)

    def make_second(self, first: SessionBackend, limits: Limits) -> SessionBackend:
        assert isinstance(first, DictBackend)
        return DictBackend(limits, store=first.store)
