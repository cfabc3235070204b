"""Audit of what the project stands on, by the data that the package index gives.

Exit status: 0 where everything was looked at and nothing found, 1 where something was found, 69 where nothing was found
in what could be looked at, and something could not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from snakepit_otel.common.printable import printable
from supply_chain import index
from supply_chain.advisories import Advisories
from supply_chain.index import NoData
from supply_chain.lock import ROOT, Locked, locked

FOUND, NOT_EVERYTHING = 1, 69
# The time that a package may be without a release before somebody has to say why it may stay.
UNMAINTAINED = timedelta(days=730)
# Packages that have had none for longer, and why they may stay.
MAY_BE_QUIET: dict[str, str] = {
    "async-timeout": "redis-py's, on Python before 3.11.3; the standard library has it since 3.11",
    "click-didyoumean": "Celery's, for its command line; runs in an example's tests alone",
    "colorama": "pytest and click have it for Windows, where nothing of ours runs",
    "ghp-import": "mkdocs's, for publishing, which we do not do with it",
    "mdurl": "rich's, for Markdown, of which we print none",
    "mergedeep": "mkdocs's, for settings that inherit, of which we have none",
    "mkdocs-material-extensions": "the theme's, by the same authors; maps icons' names, and builds pages alone",
    "paginate": "the theme's, for blogs, of which we have none",
    "shellingham": "typer's, for shell completion alone; it reads the names of processes",
    "six": "python-dateutil's, which Celery and ghp-import use; in an example's tests and for building pages",
    "sortedcontainers": "hypothesis's; runs in tests alone",
    "vine": "Celery's, for promises; runs in an example's tests alone",
}
# Ids of vulnerabilities that do not concern us, and why.
HARMLESS: dict[str, str] = {}
_AT_ONCE = 6
_NOT_UNDERSTOOD = (ValueError, TypeError, KeyError, AttributeError)
# The age that a copy of advisories may have.
_FRESH = timedelta(days=30)
_ABANDONED = {"archived", "deprecated", "quarantined"}
GRAMMARS = ROOT / "tests" / "dashboards" / "grammars"


@dataclass
class Report:
    """What an audit has found, and what it could not look at."""

    found: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        return FOUND if self.found else NOT_EVERYTHING if self.gaps else 0

    def lines(self) -> list[str]:
        """Return the report for people; what others wrote has no more than a line of it."""
        words = {
            0: "nothing found",
            FOUND: "something was found",
            NOT_EVERYTHING: "nothing found, but not all looked at",
        }
        marked = [("found", self.found), ("NOT LOOKED AT", self.gaps), ("note", self.notes)]
        return [f"{mark}: {printable(line)}" for mark, lines in marked for line in lines] + [words[self.status]]


def audit_files(package: Locked, page: dict[str, Any], now: datetime, report: Report) -> None:
    """Look at a package's files: hashes, withdrawn releases, and the time of the last one."""
    files = page["files"]
    ours = [file for file in files if (file.get("hashes") or {}).get("sha256") in package.hashes]
    named = f"{package.name} {package.version}"
    if not ours:
        report.found.append(f"{named}: the index has none of the files whose hashes are locked")
    elif withdrawn := [file for file in ours if file.get("yanked")]:
        reason = next((file["yanked"] for file in withdrawn if isinstance(file["yanked"], str)), "no reason is given")
        report.found.append(f"{named} was withdrawn (yanked): {reason}")
    status = page.get("project-status") or (page.get("meta") or {}).get("project-status") or {}
    if isinstance(status, dict):
        status = status.get("status")
    if status in _ABANDONED:
        report.found.append(f"{package.name} is {status}")
    last = max((_moment(file["upload-time"]) for file in files), default=None)
    if last is not None and now - last > UNMAINTAINED:
        quiet = f"{package.name} has had no release since {last:%Y-%m-%d}"
        if allowance := MAY_BE_QUIET.get(package.name):
            report.notes.append(f"{quiet}: {allowance}")
        else:
            report.found.append(quiet)


def audit_vulnerabilities(package: Locked, found: Iterable[tuple[str, str]], report: Report) -> None:
    for identity, mended in found:
        line = f"{package.name} {package.version} is vulnerable: {identity}{mended}"
        if reason := HARMLESS.get(identity):
            report.notes.append(f"{line}; {reason}")
        else:
            report.found.append(line)


def audit_python(advisories: Advisories | None, report: Report) -> None:
    packages, loose = locked()
    report.found += [f"the lock file pins no version or has no hash: {line}" for line in loose]
    has_vulnerability_data = advisories is not None or index.has_vulnerability_data()
    if not has_vulnerability_data:
        report.gaps.append(f"vulnerabilities of {len(packages)} Python packages: {index.host()} has no such data")
    now = datetime.now(UTC)
    if advisories is not None and now - (newest := advisories.newest()) > _FRESH:
        report.gaps.append(f"vulnerabilities that were published after {newest:%Y-%m-%d}, the day of the advisories")

    def look_at(package: Locked) -> Report:
        own = Report()
        try:
            audit_files(package, index.files(package.name), now, own)
        except NoData as error:
            own.gaps.append(f"{package.name}: files and releases ({error})")
        except _NOT_UNDERSTOOD as error:
            own.gaps.append(f"{package.name}: files and releases (the answer makes no sense: {type(error).__name__})")
        try:
            if advisories is not None:
                audit_vulnerabilities(package, ((one, "") for one in advisories.of(package.name, package.version)), own)
            elif has_vulnerability_data:
                audit_vulnerabilities(package, _of_index(package), own)
        except NoData as error:
            own.gaps.append(f"{package.name} {package.version}: vulnerabilities ({error})")
        return own

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for own in threads.map(look_at, packages):
            report.found += own.found
            report.gaps += own.gaps
            report.notes += own.notes
    report.notes.append(f"{len(packages)} Python packages, each with its version and hashes")


def audit_node(report: Report) -> None:
    what = "Node.js packages of tests/dashboards/grammars: vulnerabilities"
    if (npm := shutil.which("npm")) is None:
        report.gaps.append(f"{what} (there is no npm)")
        return
    completed = subprocess.run([npm, "audit", "--json"], cwd=GRAMMARS, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(completed.stdout)["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        report.gaps.append(f"{what} (npm has no answer from its registry)")
        return
    report.found += [f"{name} (Node.js) is vulnerable: {one.get('severity')}" for name, one in found.items()]


def audit_go(report: Report) -> None:
    if (check := shutil.which("govulncheck")) is None:
        report.gaps.append("Go modules of the collector and Prometheus: vulnerabilities (there is no govulncheck)")
        return
    for program in programs():
        completed = subprocess.run([check, "-mode=binary", program], capture_output=True, text=True, check=False)  # noqa: S603
        if completed.returncode == 3:
            report.found.append(f"{program.name} (Go) is vulnerable; govulncheck -mode=binary {program} has more")
        elif completed.returncode != 0:
            report.gaps.append(f"Go modules of {program.name}: vulnerabilities (govulncheck has no data)")


def programs() -> list[Path]:
    """Return the programs that scripts have built on this machine."""
    cache = Path.home() / ".cache" / "snakepit_otel"
    return sorted([*cache.glob("otelcol-*/otelcol"), *cache.glob("prometheus-*/prom*"), *cache.glob("ttrpc_peer-*")])


def _of_index(package: Locked) -> Iterable[tuple[str, str]]:
    for one in index.vulnerabilities(package.name, package.version):
        mended = ", ".join(map(str, one.get("fixed_in") or ()))
        yield str(one.get("id")), f", mended in {mended}" if mended else ""


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/audit", description=__doc__)
    parser.add_argument(
        "--advisories", type=Path, help="a copy of github.com/pypa/advisory-database, to be asked in place of the index"
    )
    folder = parser.parse_args().advisories
    report = Report()
    try:
        audit_python(None if folder is None else Advisories(folder), report)
    except ValueError as error:
        parser.error(str(error))
    audit_node(report)
    audit_go(report)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return report.status


if __name__ == "__main__":
    sys.exit(main())
