"""Set up the OpenTelemetry SDK for a process that is ours, by the standard `OTEL_*` variables."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel._version import VERSION
from snakepit_otel.common import secrets
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.telemetry import _controls, _instruments, names
from snakepit_otel.telemetry import _fork as fork
from snakepit_otel.telemetry import _process_metrics as process
from snakepit_otel.telemetry.environment import Environment, applied, warn
from snakepit_otel.telemetry.environment.variables import PROVIDERS
from snakepit_otel.telemetry.export.foreign import Foreign, set_up_before
from snakepit_otel.telemetry.export.ledger import Ledger

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from snakepit_otel.telemetry.export.logs import LogPipeline
    from snakepit_otel.telemetry.export.spans import SpanPipeline

_log = logging.getLogger("snakepit_otel.telemetry")
LEDGER_FILE = "SNAKEPIT_TELEMETRY_LEDGER"
"""The variable that names what holds this process' ledger, set by the authority for its workers."""
_SHARE_FOR_METRICS = 0.4
"""Of the time for shutdown: metrics go last, since they tell what became of the rest."""
_LONGEST = 86_400.0
"""Seconds to wait where no limit is set."""
_STAND_INS = ("ProxyTracerProvider", "_ProxyMeterProvider", "ProxyLoggerProvider")
"""The API's providers of nobody's."""


class Telemetry:
    """The telemetry of this process; `shutdown` sends what it holds.

    `ledger` says what became of every item, for the signals that were set up here.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger()
        self._pipelines: list[SpanPipeline | LogPipeline] = []
        self._readers: list[Any] = []
        self._foreign: dict[str, Foreign] = {}
        self._pid = os.getpid()
        atexit.register(self.shutdown)

    @property
    def exporting(self) -> bool:
        """True if any signal has an exporter of ours, or a provider of somebody else's that is seen to here."""
        return bool(self._pipelines or self._readers or self._foreign)

    @property
    def set_up_before(self) -> bool:
        """True if all that is seen to here was set up by somebody else, as `opentelemetry-instrument` does."""
        return bool(self._foreign) and not self._pipelines and not self._readers

    def flush(self, timeout: float = 3.0, *, metrics: bool = True) -> bool:
        """Send what is queued now; False if it is not all settled within `timeout` seconds.

        With `metrics`, these are collected, too; the exemplars in a collection are those since the last one. Raises
        `ConfigurationError` for a timeout that is none.
        """
        deadline = time.monotonic() + _seconds(timeout)
        outboxes = [pipeline.outbox for pipeline in self._pipelines]
        first, last = _apart(self._foreign)
        flushed = _all_at_once([*(box.flush for box in outboxes), *(other.flush for other in first)], deadline)
        readers = [*self._readers, *last] if metrics else []
        return _all_at_once((_flusher(reader) for reader in readers), deadline) and flushed

    def shutdown(self, timeout: float = 3.0) -> bool:
        """Flush and stop, in at most `timeout` seconds; False if that was too short for all of it.

        What is left then is counted as dropped. The SDK's own shutdown can wait half a minute for a
        collector that is away, hence the deadline. Raises `ConfigurationError` for a timeout that is none.
        """
        timeout = _seconds(timeout)
        atexit.unregister(self.shutdown)
        if self._pid != os.getpid():
            return True  # the child of a fork, which has nothing to send
        deadline = time.monotonic() + timeout
        pipelines, self._pipelines = self._pipelines, []
        theirs, self._foreign = self._foreign, {}
        others, last = _apart(theirs)
        readers, self._readers = [*self._readers, *last], []
        first = deadline - timeout * _SHARE_FOR_METRICS if readers else deadline
        closing = [*(pipeline.outbox.close for pipeline in pipelines), *(other.close for other in others)]
        sent = _all_at_once(closing, first)
        sent = _all_at_once((reader.close for reader in readers), deadline) and sent
        if not sent:
            _log.warning("some telemetry was not delivered within the %.1f s of shutdown and is lost", timeout)
        return sent

    def forget(self) -> None:
        """Do nothing from now on; see `fork`."""
        for pipeline in self._pipelines:
            pipeline.outbox.forget()
        for reader in self._readers:
            reader.forget()
        self._foreign = {}


def setup(
    service_name: str = "snakepit",
    *,
    role: str = "authority",
    instance_id: str | None = None,
    environ: Mapping[str, str] | None = None,
    whole_process: bool = False,
) -> Telemetry:
    """Configure tracing, metrics and logs once for this process.

    The standard variables decide: `OTEL_SDK_DISABLED`, `OTEL_{TRACES,METRICS,LOGS}_EXPORTER`,
    `OTEL_EXPORTER_OTLP_*`, samplers, limits, batching, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`
    (which wins over `service_name`); and `SNAKEPIT_TELEMETRY_LEVEL`: `off`, `essential` or `full`, the
    default. Two departures from the specification: a signal is exported over OTLP by default only where
    an OTLP endpoint is set, because nothing listens on most machines; and queues are larger, see `Batching`.
    A value that cannot be taken is one warning, and the default is taken; none of them raises.
    Providers that the application has already set are left alone. With `whole_process`, which says that there is no
    other application, they are those of `opentelemetry-instrument` or the like: `flush` and `shutdown` see to them,
    they are told of this process what they do not know, and process metrics go to them.
    """
    secrets.learn(os.environ if environ is None else environ)
    read = Environment(environ)
    # Taken out, so that what a tool starts does not write into it as well.
    if environ is None or environ is os.environ:
        os.environ.pop(LEDGER_FILE, None)
    warn(read.faults)
    _controls.set_level(_level(read))
    if read.given("OTEL_LOG_LEVEL") is not None:
        logging.getLogger("opentelemetry").setLevel(read["OTEL_LOG_LEVEL"])
    with applied(read.texts()):
        return _set_up(read, service_name, role, instance_id, whole_process)


def _set_up(read: Environment, service_name: str, role: str, instance_id: str | None, whole_process: bool) -> Telemetry:
    before = set_up_before() if whole_process else {}
    if _controls.level is _controls.Level.OFF:
        telemetry = Telemetry()
        telemetry._foreign = before
        return telemetry
    telemetry = Telemetry(_ledger(read.given(LEDGER_FILE)))
    telemetry._foreign = before
    api = {
        "traces": trace.get_tracer_provider,
        "logs": _logs.get_logger_provider,
        "metrics": metrics.get_meter_provider,
    }
    ours = {signal for signal, provider in api.items() if _is_ours(signal, read, provider())}
    if not before and not ours:
        return telemetry
    # Only here, since the SDK takes longer to load than all the rest of a worker.
    from opentelemetry.sdk.resources import Resource

    from snakepit_otel.telemetry.export import providers

    found = Resource.create()
    # One of the SDK's detectors has the whole command line.
    detected = Resource(
        {key: secrets.masked_value(key, each) for key, each in found.attributes.items()}, found.schema_url
    )
    about = _about(detected, read, service_name, role, instance_id)
    resource = detected.merge(Resource(about))
    # Workers inherit the instance's id that is in the environment, and must not be taken for each other.
    distinct = {names.SERVICE_INSTANCE_ID} if role == "worker" else set()
    for signal, other in before.items():
        if not other.complete(about, distinct):
            _log.warning(
                "the resource of %s cannot be told that this is the %s, by which dashboards tell processes apart; "
                "start it with OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit",
                printable(signal),
                printable(role),
            )
    if "traces" in ours:
        telemetry._pipelines += providers.set_up_traces(read, resource, telemetry.ledger)
    if "logs" in ours:
        telemetry._pipelines += providers.set_up_logs(read, resource, telemetry.ledger)
    if "metrics" in ours:
        telemetry._readers += providers.set_up_metrics(read, resource, telemetry.ledger)
    # Where an application has set metrics up, whether it wants these is for it to say.
    if telemetry._readers or "metrics" in before:
        process.report()
    if telemetry.exporting:
        if not telemetry.set_up_before:
            _report(telemetry)
        _instruments.observe(telemetry, names.METRIC_TELEMETRY_FORKS, lambda _: [(fork.count, {})])
        fork.watch()
        fork.in_child(telemetry)
    return telemetry


def set_level_by(environ: Mapping[str, str]) -> None:
    """Set how much is recorded, as the environment says; `setup` warns of what cannot be taken."""
    _controls.set_level(_level(Environment(environ)))


def _level(read: Environment) -> str:
    return _controls.Level.OFF if read["OTEL_SDK_DISABLED"] else read["SNAKEPIT_TELEMETRY_LEVEL"]


def _about(
    detected: Resource, read: Environment, service_name: str, role: str, instance_id: str | None
) -> dict[str, str]:
    """Return what is ours to say of this process: what the environment says stands."""
    known = detected.attributes
    named = str(known.get(names.SERVICE_NAME) or "unknown_service")
    own_id = instance_id or str(uuid.uuid4())
    if given := (read.given("OTEL_RESOURCE_ATTRIBUTES") or {}).get(names.SERVICE_INSTANCE_ID):
        own_id = f"{given}/{own_id}" if role == "worker" else given
    return {
        names.SERVICE_NAME: service_name if named.startswith("unknown_service") else named,
        names.SERVICE_VERSION: str(known.get(names.SERVICE_VERSION) or VERSION),
        names.SERVICE_INSTANCE_ID: own_id,
        names.SNAKEPIT_ROLE: role,
    }


def _is_ours(signal: str, read: Environment, provider: Any) -> bool:
    """Return whether a signal is to be exported, and nobody has set its provider."""
    if not read.exporters(signal):
        return False
    if type(provider).__name__ in _STAND_INS:
        return True
    variable = PROVIDERS[signal]
    if read.given(variable):
        _log.warning("%s are left to what %s names, and not exported by us", printable(signal), printable(variable))
    return False


def _ledger(named: str | None) -> Ledger:
    try:
        return Ledger.inherited(named) if named else Ledger()
    except OSError as error:
        _log.warning(
            "%s='%s' cannot be written (%s); the ledger is in memory",
            printable(LEDGER_FILE),
            printable(named),
            printable(error.strerror),
        )
        return Ledger()


def _seconds(timeout: float) -> float:
    """Return the seconds that threads may wait, who cannot count beyond a limit."""
    seconds = checked_timeout(timeout)
    return _LONGEST if seconds is None else min(seconds, _LONGEST)


def _apart(others: Mapping[str, Foreign]) -> tuple[list[Foreign], list[Foreign]]:
    """Those of traces and logs, and that of metrics, which goes last."""
    of_metrics = [other for signal, other in others.items() if signal == "metrics"]
    return [other for other in others.values() if other not in of_metrics], of_metrics


def _report(telemetry: Telemetry) -> None:
    """Let the ledger be read as metrics."""
    accounts = telemetry.ledger.accounts
    observe = _instruments.observe

    def each(read: Callable[[Any], float]) -> Callable[[Telemetry], list[tuple[float, dict[str, str]]]]:
        return lambda _: [
            (read(account), {names.SNAKEPIT_TELEMETRY_SIGNAL: signal}) for signal, account in accounts.items()
        ]

    observe(telemetry, names.METRIC_TELEMETRY_ENDED, each(lambda account: account.ended))
    observe(telemetry, names.METRIC_TELEMETRY_DELIVERED, each(lambda account: account.delivered))
    observe(telemetry, names.METRIC_TELEMETRY_FAILED, each(lambda account: account.failed))
    observe(telemetry, names.METRIC_TELEMETRY_QUEUE_SIZE, each(lambda account: account.queued))
    observe(telemetry, names.METRIC_TELEMETRY_DROPPED, _dropped)
    observe(telemetry, names.METRIC_TELEMETRY_QUEUE_LIMIT, _limits)


def _dropped(telemetry: Telemetry) -> list[tuple[float, dict[str, str]]]:
    return [
        (count, {names.SNAKEPIT_TELEMETRY_SIGNAL: signal, names.SNAKEPIT_TELEMETRY_DROP_REASON: reason})
        for signal, account in telemetry.ledger.accounts.items()
        for reason, count in account.dropped.items()
    ]


def _limits(telemetry: Telemetry) -> list[tuple[float, dict[str, str]]]:
    return [
        (pipeline.outbox.batching.queue_size, {names.SNAKEPIT_TELEMETRY_SIGNAL: pipeline.signal})
        for pipeline in telemetry._pipelines
    ]


def _flusher(reader: Any) -> Callable[[float], bool]:
    return reader.flush  # type: ignore[no-any-return]


def _all_at_once(actions: Iterable[Callable[[float], bool]], deadline: float) -> bool:
    """Do all of these in threads of their own, within the time; False if one failed or was late."""
    results: list[bool] = []
    threads = []
    expected = 0
    for action in actions:
        expected += 1

        def act(action: Callable[[float], bool] = action) -> None:
            try:
                results.append(action(max(0.0, deadline - time.monotonic())))
            except Exception as error:  # noqa: BLE001 - a reader of the SDK's raises when its time is over
                _log.warning("telemetry was not sent: %s", printable_error(error))

        thread = threading.Thread(target=act, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is on its way out, and starts no more threads
            act()
        else:
            threads.append(thread)
    for thread in threads:
        # A little more than the time, for what ends at it to say so.
        thread.join(max(0.0, deadline - time.monotonic()) + 0.2)
    return len(results) == expected and all(results)
