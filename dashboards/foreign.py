"""Series that are not ours: the collector's own, and Prometheus'. What queries may use of them is listed here."""

from __future__ import annotations

from dashboards.registry import Known

_COLLECTOR = "the collector's own metrics, as otel-collector.yaml has them scraped"
_PROMETHEUS = "Prometheus"

EXPORT_FAILED_SPANS = "otelcol_exporter_send_failed_spans"
EXPORT_FAILED_LOGS = "otelcol_exporter_send_failed_log_records"
ENQUEUE_FAILED_SPANS = "otelcol_exporter_enqueue_failed_spans"
ENQUEUE_FAILED_LOGS = "otelcol_exporter_enqueue_failed_log_records"
QUEUE_SIZE = "otelcol_exporter_queue_size"
QUEUE_CAPACITY = "otelcol_exporter_queue_capacity"
ACCEPTED_SPANS = "otelcol_receiver_accepted_spans"
ACCEPTED_LOGS = "otelcol_receiver_accepted_log_records"
ACCEPTED_POINTS = "otelcol_receiver_accepted_metric_points"
REFUSED_SPANS = "otelcol_receiver_refused_spans"
REFUSED_LOGS = "otelcol_receiver_refused_log_records"
REFUSED_POINTS = "otelcol_receiver_refused_metric_points"
SENT_SPANS = "otelcol_exporter_sent_spans"
SENT_LOGS = "otelcol_exporter_sent_log_records"
SENT_POINTS = "otelcol_exporter_sent_metric_points"
MEMORY = "otelcol_process_memory_rss"
DROPPED_TOO_EARLY = "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early"
TRACES_DECIDED = "otelcol_processor_tail_sampling_global_count_traces_sampled"

_ITSELF = frozenset({"job", "instance"})
_EXPORTER = _ITSELF | {"exporter"}
_RECEIVER = _ITSELF | {"receiver", "transport"}

# By name.
FOREIGN = {
    **{
        name: Known(_COLLECTOR, _EXPORTER)
        for name in (
            EXPORT_FAILED_SPANS,
            EXPORT_FAILED_LOGS,
            ENQUEUE_FAILED_SPANS,
            ENQUEUE_FAILED_LOGS,
            SENT_SPANS,
            SENT_LOGS,
            SENT_POINTS,
        )
    },
    **{name: Known(_COLLECTOR, _EXPORTER | {"data_type"}) for name in (QUEUE_SIZE, QUEUE_CAPACITY)},
    **{
        name: Known(_COLLECTOR, _RECEIVER)
        for name in (
            ACCEPTED_SPANS,
            ACCEPTED_LOGS,
            ACCEPTED_POINTS,
            REFUSED_SPANS,
            REFUSED_LOGS,
            REFUSED_POINTS,
        )
    },
    MEMORY: Known(_COLLECTOR, _ITSELF),
    DROPPED_TOO_EARLY: Known(_COLLECTOR, _ITSELF),
    TRACES_DECIDED: Known(_COLLECTOR, _ITSELF | {"sampled", "decision"}, {"sampled": frozenset({"true", "false"})}),
    "ALERTS": Known(
        _PROMETHEUS,
        frozenset({"alertname", "alertstate", "severity", "service_name", "service_namespace", "snakepit_pool_name"}),
        {"alertstate": frozenset({"pending", "firing"})},
    ),
}
