"""Log records as Loki keeps them: what becomes of OTLP, by its documentation, where nothing else is configured."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

INDEXED = frozenset(
    {
        "cloud.availability_zone",
        "cloud.region",
        "container.name",
        "deployment.environment",
        "k8s.cluster.name",
        "k8s.container.name",
        "k8s.cronjob.name",
        "k8s.daemonset.name",
        "k8s.deployment.name",
        "k8s.job.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.replicaset.name",
        "k8s.statefulset.name",
        "service.instance.id",
        "service.name",
        "service.namespace",
    }
)
"""Attributes of a resource that become labels of streams. All else is kept with each record."""

MOST_LABELS, MOST_METADATA = 15, 128
"""The most labels of a stream, and the most more of a record."""
LONGEST_NAME, LONGEST_VALUE = 1024, 2048
"""Of a label of a stream, in bytes."""
LARGEST_METADATA, LARGEST_LINE = 64 * 1024, 256 * 1024
"""Of a record, in bytes."""


@dataclass(frozen=True)
class Record:
    """A log record as Loki keeps it."""

    time: int
    """Nanoseconds since 1970."""
    line: str
    stream: dict[str, str]
    """Labels that streams are found by."""
    metadata: dict[str, str]
    """What else can be filtered: structured metadata."""

    @property
    def labels(self) -> dict[str, str]:
        """All of them."""
        return self.metadata | self.stream

    def beyond_limits(self) -> Iterator[str]:
        """Yield which of the limits that Loki has by default the record is beyond; it would be refused, or cut."""
        if len(self.stream) > MOST_LABELS:
            yield f"{len(self.stream)} labels"
        for name, value in self.stream.items():
            if len(name.encode()) > LONGEST_NAME or len(value.encode()) > LONGEST_VALUE:
                yield f"label {name} is too long"
        if len(self.metadata) > MOST_METADATA:
            yield f"{len(self.metadata)} names in its metadata"
        if sum(len(name.encode()) + len(value.encode()) for name, value in self.metadata.items()) > LARGEST_METADATA:
            yield "metadata is too large"
        if len(self.line.encode()) > LARGEST_LINE:
            yield "line is too long"


def records(request: ExportLogsServiceRequest) -> Iterator[Record]:
    """Yield the records of a request."""
    for resource in request.resource_logs:
        indexed = [one for one in resource.resource.attributes if one.key in INDEXED]
        rest = [one for one in resource.resource.attributes if one.key not in INDEXED]
        # What Loki calls a service that has no name.
        stream = {"service_name": "unknown_service"} | dict(_flat(indexed))
        for scope in resource.scope_logs:
            of_scope = {"scope_name": scope.scope.name, "scope_version": scope.scope.version}
            shared = dict(_flat(rest)) | of_scope | dict(_flat(scope.scope.attributes))
            for record in scope.log_records:
                metadata = shared | dict(_flat(record.attributes)) | _fields(record)
                yield Record(
                    record.time_unix_nano or record.observed_time_unix_nano,
                    _text(record.body),
                    stream,
                    {name: value for name, value in metadata.items() if value},
                )


def _fields(record: LogRecord) -> dict[str, str]:
    """Return what else there is to a record. Its event's name is not: that field is dropped."""
    return {
        "observed_timestamp": str(record.observed_time_unix_nano or ""),
        "severity_number": str(record.severity_number or ""),
        "severity_text": record.severity_text,
        "flags": str(record.flags or ""),
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
    }


def _flat(attributes: Iterable[KeyValue], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield labels and values, of what is nested by all the names on the way to it."""
    for one in attributes:
        name = before + re.sub(r"[^A-Za-z0-9_]", "_", one.key)
        if one.value.WhichOneof("value") == "kvlist_value":
            yield from _flat(one.value.kvlist_value.values, f"{name}_")
        else:
            yield name, _text(one.value)


def _text(value: AnyValue) -> str:
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    return "" if plain is None else json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


def _plain(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_plain(one) for one in value.array_value.values]
        case "kvlist_value":
            return {one.key: _plain(one.value) for one in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case kind:
            return getattr(value, kind)
