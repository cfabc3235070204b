"""Root of all errors: the facts that a caller decides by, whatever the kind of error."""

from __future__ import annotations

from typing import ClassVar, TypedDict, Unpack


class Details(TypedDict, total=False):
    """Facts that an error of any kind may have besides its message; see `SnakepitError`."""

    may_have_run: bool
    retryable: bool
    tool: str | None
    pool: str | None
    worker: str | None
    waited: float | None
    queue_length: int | None
    retry_after: float | None


class SnakepitError(Exception):
    """The root of all errors that snakepit_otel raises.

    `may_have_run` is false if the request did certainly not run, in whole or in part. `retryable` is true if the same
    request may succeed later. `http_status` and `grpc_status` are what a front end answers its own caller with.
    `tool`, `pool` and `worker` name what was concerned; `waited` are the seconds in the queue, `queue_length` the
    requests in it, and `retry_after` the seconds after which to try again; each is None where that is not known.
    """

    __module__ = "snakepit_otel.errors"

    reason: ClassVar[str | None] = None
    may_have_run = False
    retryable = False
    http_status = 500
    grpc_status = "INTERNAL"
    tool: str | None = None
    pool: str | None = None
    worker: str | None = None
    waited: float | None = None
    queue_length: int | None = None
    retry_after: float | None = None

    def __init_subclass__(
        cls,
        *,
        http: int | None = None,
        grpc: str | None = None,
        may_have_run: bool | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init_subclass__()
        given = {"http_status": http, "grpc_status": grpc, "may_have_run": may_have_run, "retryable": retryable}
        for name, value in given.items():
            if value is not None:
                setattr(cls, name, value)

    def __init__(self, *args: object, **details: Unpack[Details]) -> None:
        super().__init__(*args)
        self.__dict__.update(details)
