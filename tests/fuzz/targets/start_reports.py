"""The report of a worker at its start."""

from __future__ import annotations

from snakepit_otel.errors import SnakepitError
from snakepit_otel.pool.workers.start_report import NoReport, StartReport, read
from tests.fuzz.kit import insist, refusing, target


@target()
def start_reports(data: bytes) -> None:
    """What a worker reports is that it is ready, why it is not, or no report: said in a line, whatever it wrote."""
    with refusing(NoReport):
        report = read(data)
        insist(isinstance(report, (StartReport, SnakepitError)))
        if isinstance(report, StartReport):
            insist(all(isinstance(tool, str) and tool for tool in report.tools))
