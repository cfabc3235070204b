"""Set up the OpenTelemetry SDK for a process that is ours, by the standard `OTEL_*` variables."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel.telemetry import controls, fork, instruments, names, process
from snakepit_otel.telemetry.export.foreign import Foreign, set_up_before
from snakepit_otel.telemetry.export.ledger import SIGNALS, Ledger

if TYPE_CHECKING:
    from snakepit_otel.telemetry.export.logs import LogPipeline
    from snakepit_otel.telemetry.export.spans import SpanPipeline

_log = logging.getLogger("snakepit_otel.telemetry")
LEDGER_FILE = "SNAKEPIT_TELEMETRY_LEDGER"
"""The variable that names the file for this process' ledger, set by the authority for its workers."""
_SHARE_FOR_METRICS = 0.4
"""Of the time for shutdown: metrics go last, since they tell what became of the rest."""


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

        With `metrics`, these are collected, too; the exemplars in a collection are those since the last one.
        """
        deadline = time.monotonic() + timeout
        outboxes = [pipeline.outbox for pipeline in self._pipelines]
        first, last = _apart(self._foreign)
        flushed = _all_at_once([*(box.flush for box in outboxes), *(other.flush for other in first)], deadline)
        readers = [*self._readers, *last] if metrics else []
        return _all_at_once((_flusher(reader) for reader in readers), deadline) and flushed

    def shutdown(self, timeout: float = 3.0) -> bool:
        """Flush and stop, in at most `timeout` seconds; False if that was too short for all of it.

        What is left then is counted as dropped. The SDK's own shutdown can wait half a minute for a
        collector that is away, hence the deadline.
        """
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
    Providers that the application has already set are left alone. With `whole_process`, which says that there is no
    other application, they are those of `opentelemetry-instrument` or the like: `flush` and `shutdown` see to them,
    they are told of this process what they do not know, and process metrics go to them.

    Raises `ValueError` for an exporter that is not installed, or a level that there is not.
    """
    environ = os.environ if environ is None else environ
    # Taken out, so that what a tool starts does not write into it as well.
    named = os.environ.pop(LEDGER_FILE, None) if environ is os.environ else environ.get(LEDGER_FILE)
    set_level_by(environ)
    before = set_up_before() if whole_process else {}
    if controls.level is controls.Level.OFF:
        telemetry = Telemetry()
        telemetry._foreign = before
        return telemetry
    exported = {signal: _exported(signal, environ) for signal in SIGNALS}
    telemetry = Telemetry(Ledger(Path(named) if named else None))
    telemetry._foreign = before
    if not before and not any(exported.values()):
        return telemetry
    # Only here; see there.
    from snakepit_otel.telemetry.export import providers

    exporters = {
        signal: [providers.exporter(signal, name, environ) for name in chosen] for signal, chosen in exported.items()
    }
    resource, about = providers.described(environ, service_name, role, instance_id or str(uuid.uuid4()))
    for signal, other in before.items():
        if not other.complete(about):
            _log.warning(
                "the resource of %s cannot be told that this is the %s, by which dashboards tell processes apart; "
                "start it with OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit",
                signal,
                role,
            )
    if exporters["traces"] and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        telemetry._pipelines += providers.set_up_traces(exporters["traces"], resource, telemetry.ledger, environ)
    if exporters["logs"] and type(_logs.get_logger_provider()).__name__ == "ProxyLoggerProvider":
        telemetry._pipelines += providers.set_up_logs(exporters["logs"], resource, telemetry.ledger, environ)
    if exporters["metrics"] and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        telemetry._readers += providers.set_up_metrics(exporters["metrics"], resource, telemetry.ledger)
    # Where an application has set metrics up, whether it wants these is for it to say.
    if telemetry._readers or "metrics" in before:
        process.report()
    if telemetry.exporting:
        if not telemetry.set_up_before:
            _report(telemetry)
        instruments.observe(telemetry, names.METRIC_TELEMETRY_FORKS, lambda _: [(fork.count, {})])
        fork.watch()
        fork.in_child(telemetry)
    return telemetry


def set_level_by(environ: Mapping[str, str]) -> None:
    """Set how much is recorded, as the environment says. Raises `ValueError` for a level that there is not."""
    level = environ.get("SNAKEPIT_TELEMETRY_LEVEL", "").strip().lower() or controls.Level.FULL
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        level = controls.Level.OFF
    try:
        controls.set_level(level)
    except ValueError:
        raise ValueError(f"SNAKEPIT_TELEMETRY_LEVEL is {level!r}; it must be off, essential or full") from None


def _apart(others: Mapping[str, Foreign]) -> tuple[list[Foreign], list[Foreign]]:
    """Those of traces and logs, and that of metrics, which goes last."""
    of_metrics = [other for signal, other in others.items() if signal == "metrics"]
    return [other for other in others.values() if other not in of_metrics], of_metrics


def _report(telemetry: Telemetry) -> None:
    """Let the ledger be read as metrics."""
    accounts = telemetry.ledger.accounts
    observe = instruments.observe

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
            results.append(action(max(0.0, deadline - time.monotonic())))

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


def _exported(signal: str, environ: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters that are asked for."""
    upper = signal.upper()
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    chosen = environ.get(f"OTEL_{upper}_EXPORTER") or ("otlp" if endpoint else "none")
    return [name.strip() for name in chosen.split(",") if name.strip() not in ("none", "")]
