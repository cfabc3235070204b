"""Set up the OpenTelemetry SDK for a process that is ours, by the standard `OTEL_*` variables."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from snakepit_otel._version import VERSION
from snakepit_otel.common import secrets
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.telemetry import _controls, _fork, _instruments, _process_metrics, names
from snakepit_otel.telemetry.environment import Environment, applied, warn
from snakepit_otel.telemetry.environment.variables import PROVIDERS
from snakepit_otel.telemetry.export.description import describe_exports
from snakepit_otel.telemetry.export.existing_providers import ExistingProvider, current_providers, existing_providers
from snakepit_otel.telemetry.export.ledger import Ledger

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from snakepit_otel.telemetry.export.logs import LogPipeline
    from snakepit_otel.telemetry.export.spans import SpanPipeline

_log = logging.getLogger("snakepit_otel.telemetry")
# The environment variable by which an authority names the file of a worker's ledger.
LEDGER_FILE = "SNAKEPIT_TELEMETRY_LEDGER"
# Metrics are exported last at shutdown, since they report the other signals' outcomes, and get this share of the time.
_METRICS_SHARE = 0.4
_MAX_WAIT_SECONDS = 86_400.0
Role = Literal["authority", "client", "worker"]
_API_PLACEHOLDERS = ("ProxyTracerProvider", "_ProxyMeterProvider", "ProxyLoggerProvider")


class Telemetry:
    """The telemetry of this process.

    `ledger` counts every item's outcome, for the signals that were set up here.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger()
        self._pipelines: list[SpanPipeline | LogPipeline] = []
        self._readers: list[Any] = []
        self._existing: dict[str, ExistingProvider] = {}
        self.exports = ""  # signals with protocols and endpoints, for people
        self._pid = os.getpid()
        atexit.register(self.shutdown)

    @property
    def exporting(self) -> bool:
        """True if any signal has an exporter, or a provider set up by something else."""
        return bool(self._pipelines or self._readers or self._existing)

    @property
    def set_up_before(self) -> bool:
        """True if every provider was set up by something else, such as `opentelemetry-instrument`."""
        return bool(self._existing) and not self._pipelines and not self._readers

    def flush(self, timeout: float = 3.0, *, metrics: bool = True) -> bool:
        """Export the items queued now; False if not all have an outcome within `timeout` seconds.

        With `metrics`, these are collected, too; a collection has the exemplars since the last one. Raises
        `ConfigurationError` for an invalid timeout.
        """
        deadline = time.monotonic() + _seconds(timeout)
        first, last = _metrics_last(self._existing)
        queues = [pipeline.queue for pipeline in self._pipelines]
        flushed = _concurrently([queue.flush for queue in queues] + [provider.flush for provider in first], deadline)
        readers = [*self._readers, *last] if metrics else []
        return _concurrently([reader.flush for reader in readers], deadline) and flushed

    def shutdown(self, timeout: float = 3.0) -> bool:
        """Flush and stop, in at most `timeout` seconds; False if that was too short for all of it.

        Items left then count as dropped. The SDK's own shutdown can wait half a minute for a collector that is away,
        hence the deadline. Raises `ConfigurationError` for an invalid timeout.
        """
        timeout = _seconds(timeout)
        atexit.unregister(self.shutdown)
        if self._pid != os.getpid():
            return True  # the child of a fork, which has nothing to export
        deadline = time.monotonic() + timeout
        pipelines, self._pipelines = self._pipelines, []
        existing, self._existing = self._existing, {}
        first, last = _metrics_last(existing)
        readers, self._readers = [*self._readers, *last], []
        first_deadline = deadline - timeout * _METRICS_SHARE if readers else deadline
        queues = [pipeline.queue for pipeline in pipelines]
        delivered = _concurrently(
            [queue.close for queue in queues] + [provider.close for provider in first], first_deadline
        )
        delivered = _concurrently([reader.close for reader in readers], deadline) and delivered
        if not delivered:
            _log.warning("some telemetry was not delivered within the %.1f s of shutdown and is lost", timeout)
        return delivered

    def forget(self) -> None:
        """Do nothing from now on; see `fork`."""
        for pipeline in self._pipelines:
            pipeline.queue.disable()
        for reader in self._readers:
            reader.disable()
        self._existing = {}


def setup(
    service_name: str = "snakepit",
    *,
    role: Role = "authority",
    instance_id: str | None = None,
    environ: Mapping[str, str] | None = None,
    whole_process: bool = False,
) -> Telemetry:
    """Configure tracing, metrics and logs once for this process.

    `role` is that of the process in dashboards: `authority` for a program with a `Snakepit`, `client` for one that
    calls an authority by `Client` and has none itself, such as a web front end, `worker` for a worker.

    The standard variables decide: `OTEL_SDK_DISABLED`, `OTEL_{TRACES,METRICS,LOGS}_EXPORTER`,
    `OTEL_EXPORTER_OTLP_*`, samplers, limits, batching, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`
    (which wins over `service_name`); and `SNAKEPIT_TELEMETRY_LEVEL`: `off`, `essential` or `full`, the
    default. Two departures from the specification: a signal is exported over OTLP by default only where
    an OTLP endpoint is set, because nothing listens on most machines; and queues are larger, see `BatchSettings`.
    An invalid value of a variable is logged, and the default is used; none raises. Raises `ConfigurationError` for
    another role.
    Providers that the application has already set stay as they are. With `whole_process`, there is no other
    application, and providers are those of `opentelemetry-instrument` or the like: `flush` and `shutdown` include them,
    their resources get the attributes that they lack, and process metrics go to them.
    """
    if role not in get_args(Role):
        raise ConfigurationError(f"telemetry.setup has the role {role!r:.60}; it must be one of {get_args(Role)}")
    secrets.learn(os.environ if environ is None else environ)
    read = Environment(environ)
    # Removed, so that a process which a tool starts does not write into it as well.
    if environ is None or environ is os.environ:
        os.environ.pop(LEDGER_FILE, None)
    warn(read.faults)
    _controls.set_level(_level(read))
    if read.given("OTEL_LOG_LEVEL") is not None:
        logging.getLogger("opentelemetry").setLevel(read["OTEL_LOG_LEVEL"])
    with applied(read.texts()):
        return _set_up(read, service_name, role, instance_id, whole_process)


def _set_up(
    read: Environment, service_name: str, role: Role, instance_id: str | None, whole_process: bool
) -> Telemetry:
    existing = existing_providers() if whole_process else {}
    if _controls.level is _controls.Level.OFF:
        telemetry = Telemetry()
        telemetry._existing = existing
        return telemetry
    telemetry = Telemetry(_ledger(read.given(LEDGER_FILE)))
    telemetry._existing = existing
    exported = {signal for signal, provider in current_providers().items() if _is_exported(signal, read, provider)}
    if not existing and not exported:
        return telemetry
    telemetry.exports = describe_exports(read, exported)
    # Imported here: the SDK takes longer to load than all the rest of a worker.
    from opentelemetry.sdk.resources import Resource

    from snakepit_otel.telemetry.export import providers

    created = Resource.create()
    # One of the SDK's detectors adds the whole command line, which may have secrets.
    detected = Resource(
        {key: secrets.masked_value(key, each) for key, each in created.attributes.items()}, created.schema_url
    )
    attributes = _resource_attributes(detected, read, service_name, role, instance_id)
    resource = detected.merge(Resource(attributes))
    # Workers inherit the environment's instance id, and must have different ones.
    distinct = {names.SERVICE_INSTANCE_ID} if role == "worker" else set()
    for signal, provider in existing.items():
        if not provider.complete(attributes, distinct):
            _log.warning(
                "the resource of %s cannot get the role %s, by which dashboards distinguish processes; "
                "start it with OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit",
                printable(signal),
                printable(role),
            )
    if "traces" in exported:
        telemetry._pipelines += providers.set_up_traces(read, resource, telemetry.ledger)
    if "logs" in exported:
        telemetry._pipelines += providers.set_up_logs(read, resource, telemetry.ledger)
    if "metrics" in exported:
        telemetry._readers += providers.set_up_metrics(read, resource, telemetry.ledger)
    # An application that has set metrics up decides itself whether it wants process metrics.
    if telemetry._readers or "metrics" in existing:
        _process_metrics.register()
    if telemetry.exporting:
        if not telemetry.set_up_before:
            _report_ledger(telemetry)
        _instruments.observe(telemetry, names.METRIC_TELEMETRY_FORKS, lambda _: [(_fork.fork_count, {})])
        _fork.register()
        _fork.forget_in_child(telemetry)
    return telemetry


def set_level_by(environ: Mapping[str, str]) -> None:
    """Set the level of recording by the environment; `setup` logs invalid values."""
    _controls.set_level(_level(Environment(environ)))


def _level(read: Environment) -> str:
    return _controls.Level.OFF if read["OTEL_SDK_DISABLED"] else read["SNAKEPIT_TELEMETRY_LEVEL"]


def _resource_attributes(
    detected: Resource, read: Environment, service_name: str, role: Role, instance_id: str | None
) -> dict[str, str]:
    """Return this process' attributes; values of the environment win."""
    service = str(detected.attributes.get(names.SERVICE_NAME) or "unknown_service")
    own_id = instance_id or str(uuid.uuid4())
    if given := (read.given("OTEL_RESOURCE_ATTRIBUTES") or {}).get(names.SERVICE_INSTANCE_ID):
        own_id = f"{given}/{own_id}" if role == "worker" else given
    attributes = {
        names.SERVICE_NAME: service_name if service.startswith("unknown_service") else service,
        names.SERVICE_INSTANCE_ID: own_id,
        names.SNAKEPIT_ROLE: role,
    }
    version = detected.attributes.get(names.SERVICE_VERSION)
    if version or role != "client":  # a client is not ours, and our version not its own
        attributes[names.SERVICE_VERSION] = str(version or VERSION)
    return attributes


def _is_exported(signal: str, read: Environment, provider: Any) -> bool:
    if not read.exporters(signal):
        return False
    if type(provider).__name__ in _API_PLACEHOLDERS:
        return True
    variable = PROVIDERS[signal]
    if read.given(variable):
        _log.warning("%s are left to the provider that %s names", printable(signal), printable(variable))
    return False


def _ledger(path: str | None) -> Ledger:
    try:
        return Ledger.inherited(path) if path else Ledger()
    except OSError as error:
        _log.warning(
            "%s='%s' cannot be written (%s); the ledger is in memory",
            printable(LEDGER_FILE),
            printable(path),
            printable(error.strerror),
        )
        return Ledger()


def _seconds(timeout: float) -> float:
    """Return a timeout that `threading` can wait for, which has a limit."""
    seconds = checked_timeout(timeout)
    return _MAX_WAIT_SECONDS if seconds is None else min(seconds, _MAX_WAIT_SECONDS)


def _metrics_last(
    providers: Mapping[str, ExistingProvider],
) -> tuple[list[ExistingProvider], list[ExistingProvider]]:
    last = [provider for signal, provider in providers.items() if signal == "metrics"]
    return [provider for provider in providers.values() if provider not in last], last


def _report_ledger(telemetry: Telemetry) -> None:
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
        (pipeline.queue.settings.queue_size, {names.SNAKEPIT_TELEMETRY_SIGNAL: pipeline.signal})
        for pipeline in telemetry._pipelines
    ]


def _concurrently(actions: Iterable[Callable[[float], bool]], deadline: float) -> bool:
    """Run actions in threads, each with the seconds left; False if one failed or was late."""
    results: list[bool] = []
    threads = []
    expected = 0
    for action in actions:
        expected += 1

        def act(action: Callable[[float], bool] = action) -> None:
            # A reader of the SDK raises at its timeout.
            with guard("exporting telemetry", _log, traceback=False):
                results.append(action(max(0.0, deadline - time.monotonic())))

        thread = threading.Thread(target=act, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter shuts down, and starts no more threads
            act()
        else:
            threads.append(thread)
    for thread in threads:
        # A little longer, for an action that ends at its timeout to return.
        thread.join(max(0.0, deadline - time.monotonic()) + 0.2)
    return len(results) == expected and all(results)
