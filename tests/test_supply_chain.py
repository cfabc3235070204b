"""The audit of what the project stands on, with an index that answers as a test says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from supply_chain import audit, index
from supply_chain.advisories import Advisories, affects
from supply_chain.audit import HARMLESS, MAY_BE_QUIET, Report, audit_files, audit_python
from supply_chain.index import KNOWN_TO_BE_VULNERABLE, NoData
from supply_chain.lock import Locked, locked

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PACKAGE = Locked("some", "1.0", frozenset({"a" * 64}))


def page(hashed: str = "a" * 64, age: timedelta = timedelta(1), **more: Any) -> dict[str, Any]:
    """Return what an index has of a package with one file."""
    file = {"hashes": {"sha256": hashed}, "upload-time": (NOW - age).isoformat(), "yanked": False}
    return {"files": [{**file, **more}]}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (page(), ""),
        (page("b" * 64), "the index has none of the files whose hashes are locked"),
        (page(yanked=True), "some 1.0 was withdrawn (yanked): no reason is given"),
        (page(yanked="broken"), "some 1.0 was withdrawn (yanked): broken"),
        (page(age=timedelta(800)), "some has had no release since 2024-03-23"),
        ({**page(), "project-status": {"status": "archived"}}, "some is archived"),
        ({**page(), "project-status": {"status": "active"}}, ""),
    ],
    ids=["good", "another", "yanked", "yanked-why", "quiet", "archived", "active"],
)
def test_files_and_releases(answer: dict[str, Any], found: str) -> None:
    """Files that are not the locked ones, and packages that were withdrawn or abandoned, are found."""
    report = Report()
    audit_files(PACKAGE, answer, NOW, report)
    assert len(report.found) == bool(found)
    assert found in "".join(report.found)
    assert report.status == bool(found)


def test_what_others_wrote_is_a_line() -> None:
    """The reason of a withdrawal is of whoever withdrew it, and neither adds lines nor drives a terminal."""
    report = Report()
    audit_files(PACKAGE, page(yanked="\x1b[2J\nnothing found" + "x" * 9_000), NOW, report)
    assert all(len(line) < 250 and line.isprintable() for line in report.lines())


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An index that has one package, in good order."""
    known: dict[str, Any] = {"some": [], KNOWN_TO_BE_VULNERABLE[0]: [{"id": "PYSEC-1"}], "files": page()}

    def vulnerabilities(name: str, version: str) -> list[dict[str, Any]]:
        if isinstance(known[name], Exception):
            raise known[name]
        found: list[dict[str, Any]] = known[name]
        return found

    def files(name: str) -> dict[str, Any]:
        if isinstance(known["files"], Exception):
            raise known["files"]
        found: dict[str, Any] = known["files"]
        return found

    fresh = page(age=NOW - datetime.now(UTC))
    known["files"] = fresh
    monkeypatch.setattr(audit, "locked", lambda: ([PACKAGE], []))
    monkeypatch.setattr(index, "vulnerabilities", vulnerabilities)
    monkeypatch.setattr(index, "files", files)
    index.has_vulnerability_data.cache_clear()
    return known


def audited(advisories: Advisories | None = None) -> Report:
    """Return what is found, with the package index alone."""
    report = Report()
    audit_python(advisories, report)
    index.has_vulnerability_data.cache_clear()
    return report


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, 0, "nothing found"),
        ({"some": [{"id": "PYSEC-2", "fixed_in": ["1.1"]}]}, 1, "vulnerable: PYSEC-2, mended in 1.1"),
        ({"some": NoData("503")}, 69, "some 1.0: vulnerabilities (503)"),
        ({"files": NoData("503")}, 69, "some: files and releases (503)"),
        ({"files": {"files": [{"upload-time": "junk"}]}}, 1, "none of the files"),
        ({"files": {"files": [7]}}, 69, "the answer makes no sense: AttributeError"),
        ({KNOWN_TO_BE_VULNERABLE[0]: []}, 69, "vulnerabilities of 1 Python packages: "),
    ],
    ids=["good", "vulnerable", "no-answer", "no-files", "junk", "nonsense", "no-data"],
)
def test_an_index_that_has_no_data_is_no_success(
    answers: dict[str, Any], changes: dict[str, Any], status: int, words: str
) -> None:
    """What could not be looked at is listed and has an exit status of its own, also where all seems to be well."""
    answers.update(changes)
    report = audited()
    assert report.status == status
    assert words in "\n".join(report.lines())


def test_advisories_of_a_folder(answers: dict[str, Any], tmp_path: Path) -> None:
    """They are asked in place of the index; old ones leave open what came later, and a folder of none is an error."""
    with pytest.raises(ValueError, match="has no advisories"):
        Advisories(tmp_path)
    folder = tmp_path / "vulns" / "some"
    folder.mkdir(parents=True)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    advisory = 'id: PYSEC-3\nmodified: "{day}T00:00:00Z"\naffected:\n- package: {{name: Some, ecosystem: PyPI}}\n{more}'
    (folder / "PYSEC-3.yaml").write_text(advisory.format(day=today, more='  versions: ["1.0"]\n'))
    assert audited(Advisories(tmp_path)).found == ["some 1.0 is vulnerable: PYSEC-3"]
    (folder / "PYSEC-3.yaml").write_text(advisory.format(day="2020-01-02", more='  versions: ["0.9"]\n'))
    report = audited(Advisories(tmp_path))
    assert report.status == 69
    assert report.gaps == ["vulnerabilities that were published after 2020-01-02, the day of the advisories"]


@pytest.mark.parametrize(
    ("events", "version", "affected"),
    [
        ([{"introduced": "0"}, {"fixed": "1.1"}], "1.0", True),
        ([{"introduced": "0"}, {"fixed": "1.1"}], "1.1", False),
        ([{"introduced": "1.0"}, {"fixed": "1.1"}, {"introduced": "2.0"}], "1.5", False),
        ([{"introduced": "1.0"}, {"fixed": "1.1"}, {"introduced": "2.0"}], "2.1", True),
        ([{"introduced": "0"}, {"last_affected": "1.0"}], "1.0", True),
        ([{"introduced": "0"}, {"last_affected": "1.0"}], "1.0.1", False),
        ([], "1.0", False),
    ],
)
def test_ranges_of_advisories(events: list[dict[str, str]], version: str, affected: bool) -> None:
    """A release is affected from what introduced a fault to what ended it."""
    package = {"name": "some", "ecosystem": "PyPI"}
    advisory = {"affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]}
    assert affects(advisory, "Some", version) is affected
    assert not affects(advisory, "other", version)


def test_the_lock_file_pins_everything() -> None:
    """Every package has one version and hashes, so that pip installs these files or none."""
    packages, loose = locked()
    assert len(packages) > 50
    assert loose == []
    assert locked("some==1.0\nother>=2 --hash=sha256:" + "a" * 64) == (
        [],
        ["some==1.0", "other>=2 --hash=sha256:" + "a" * 64],
    )


def test_reasons_are_of_packages_that_are_locked() -> None:
    """What need not be looked at any more leaves the list, and each entry has its reason."""
    assert set(MAY_BE_QUIET) <= {package.name for package in locked()[0]}
    assert all([*MAY_BE_QUIET.values(), *HARMLESS.values()])
