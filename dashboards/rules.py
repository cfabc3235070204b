"""Recording rules and alerts, as Prometheus reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dashboards.promql import SERVICE

# Where runbooks are to be read. Nothing is there: whoever installs the rules says where theirs are.
RUNBOOKS = "https://snakepit-otel.invalid/docs/runbooks"
# Where Grafana is.
GRAFANA = "http://localhost:3000"


@dataclass(frozen=True)
class Recording:
    """A series that Prometheus computes at every interval, and keeps."""

    # `level:metric:operations`, as Prometheus recommends.
    record: str
    expression: str

    def plain(self) -> dict[str, Any]:
        return {"record": self.record, "expr": self.expression}


@dataclass(frozen=True)
class Alert:
    """Something that somebody should look at."""

    # Without the prefix that all of ours have.
    name: str
    # Critical: callers suffer now. Warning: they will, or some do. Info: worth knowing in working hours.
    severity: Literal["critical", "warning", "info"]
    expression: str
    # One line, with labels as Prometheus fills them in.
    summary: str
    description: str
    # The uid of the page to look at.
    page: str
    # How long it must be so before it fires.
    lasts: str = "0m"
    # How long it goes on firing when it is no longer so; against flapping, and for what is over in a moment.
    keeps: str | None = None
    # Variables of the page, and the labels that fill them; those that say which service come by themselves.
    variables: Mapping[str, str] = field(default_factory=dict)
    # Whether its series say of which service they are.
    of_a_service: bool = True

    @property
    def full_name(self) -> str:
        return f"Snakepit{self.name}"

    @property
    def runbook(self) -> str:
        """Return the name of the file with its runbook: `SessionQuotaNear` is in `session-quota-near.md`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower() + ".md"

    def plain(self, runbooks: str = RUNBOOKS, grafana: str = GRAFANA) -> dict[str, Any]:
        filled = {label: label for label in SERVICE if self.of_a_service} | dict(self.variables)
        query = "&".join(f"var-{variable}={{{{ $labels.{label} }}}}" for variable, label in filled.items())
        link = f"{grafana}/d/{self.page}" + (f"?{query}" if query else "")
        timing = {"for": self.lasts} | ({"keep_firing_for": self.keeps} if self.keeps else {})
        return {
            "alert": self.full_name,
            "expr": self.expression,
            **timing,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbooks}/{self.runbook}",
                "dashboard_url": link,
            },
        }


@dataclass(frozen=True)
class Group:
    name: str
    rules: Sequence[Recording | Alert]
    interval: str = "30s"

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "interval": self.interval, "rules": [rule.plain() for rule in self.rules]}
