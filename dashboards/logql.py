"""Queries for log records, as data, with one rendering to LogQL.

Loki is not run to prove them: what reads the text and what selects records by hand go by the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dashboards.promql import PANELS, SERVICE, Matcher
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry._definitions import Event

# The label of an event's name, which behind the collector is an attribute.
EVENT_NAME = "event_name"
# The label of a log record's severity, in words.
SEVERITY = "severity_text"


@dataclass(frozen=True)
class Value:
    """The value of a label, as a part of a line."""

    label: str
    # If not None, what stands before a value that is not empty; where it is empty, nothing does.
    before: str | None = None

    def __str__(self) -> str:
        shown = f".{self.label}"
        return f"{{{{{shown}}}}}" if self.before is None else f"{{{{with {shown}}}}}{self.before}{{{{.}}}}{{{{end}}}}"


@dataclass(frozen=True)
class Body:
    """The record's own text, as a part of a line."""

    def __str__(self) -> str:
        return "{{__line__}}"


Part = Value | Body | str


@dataclass(frozen=True)
class LogQuery:
    # By index label: what chooses the streams. At least one has to rule out the empty value, or Loki refuses.
    stream: Mapping[str, Matcher]
    # By label, of which all that a record has can be filtered, in their order.
    filters: tuple[tuple[str, Matcher], ...] = ()
    # What is shown of a record; its own text where there is nothing here.
    line: tuple[Part, ...] = field(default=())

    def where(self, attribute: str, value: Matcher | str) -> LogQuery:
        """Return the query for those records alone of which an attribute, or a field by its label, is this."""
        matcher = value if isinstance(value, Matcher) else Matcher("=", value)
        return replace(self, filters=(*self.filters, (label_name(attribute), matcher)))

    def of(self, event: Event) -> LogQuery:
        return self.where(EVENT_NAME, event.name)

    def shown_as(self, *parts: Part) -> LogQuery:
        return replace(self, line=parts)

    def filled_in(self, fill: Callable[[str], str]) -> LogQuery:
        """Return the query with another text in each matcher, for one that has variables."""

        def filled(matcher: Matcher) -> Matcher:
            return Matcher(matcher.operator, fill(matcher.text))

        return replace(
            self,
            stream={label: filled(matcher) for label, matcher in self.stream.items()},
            filters=tuple((label, filled(matcher)) for label, matcher in self.filters),
        )

    @property
    def labels(self) -> Iterator[str]:
        yield from self.stream
        yield from (label for label, _ in self.filters)
        yield from (part.label for part in self.line if isinstance(part, Value))

    @property
    def text(self) -> str:
        stages = [f"{{{','.join(matcher.on(label) for label, matcher in self.stream.items())}}}"]
        stages += [matcher.on(label) for label, matcher in self.filters]
        if self.line:
            stages.append(f"line_format `{''.join(map(str, self.line))}`")
        return " | ".join(stages)


# A choice at the top of a dashboard.
RECORDS = LogQuery({label: PANELS.matchers[label] for label in SERVICE})
