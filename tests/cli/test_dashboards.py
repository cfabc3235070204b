"""`snakepit-otel dashboards`: what it writes, what it refuses to overwrite, and that a wheel has all of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dashboards import rules
from dashboards.alerts import alerts
from snakepit_otel.cli import dashboards as command
from snakepit_otel.cli.app import app
from tests.processes import ROOT

DASHBOARDS = ROOT / "dashboards"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["dashboards", *map(str, arguments)])


def contents(folder: Path) -> dict[str, str]:
    """Every file's text, by its way from the folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def annotations(folder: Path, name: str) -> Iterator[str]:
    """One annotation of every alert."""
    file: dict[str, Any] = yaml.safe_load((folder / "prometheus" / "snakepit-alerts.yaml").read_text())
    for group in file["groups"]:
        for rule in group["rules"]:
            yield rule["annotations"][name]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written without options."""
    folder = tmp_path_factory.mktemp("of no options") / "out"
    result = run(folder)
    assert result.exit_code == 0, result.output
    return folder


def test_everything_is_written(written: Path) -> None:
    """Each page, rule, runbook and configuration of the checkout is there, and nothing else."""
    runbooks = ROOT / "docs" / "runbooks"
    parts = ("grafana", "prometheus", "provisioning", "compose")
    expected = {str(path.relative_to(DASHBOARDS)) for part in parts for path in (DASHBOARDS / part).iterdir()}
    expected |= {f"runbooks/{path.name}" for path in runbooks.iterdir()} | {"compose.yaml", "otel-collector.yaml"}
    found = contents(written)
    assert found.keys() == expected
    for part in ("provisioning", "compose", "compose.yaml"):
        for name in (name for name in found if name.startswith(part)):
            assert found[name] == (DASHBOARDS / name).read_text()
    assert found["otel-collector.yaml"] == (ROOT / "otel-collector.yaml").read_text()


def test_alerts_lead_to_the_runbooks_that_are_written(written: Path) -> None:
    """Unless told otherwise, each alert's link is one of the files, which is its own."""
    links = list(annotations(written, "runbook_url"))
    assert links == [(written / "runbooks" / alert.runbook).as_uri() for alert in alerts()]
    for alert in alerts():
        assert (written / "runbooks" / alert.runbook).read_text().startswith(f"# {alert.full_name}\n")
    assert all(link.startswith(rules.GRAFANA + "/d/") for link in annotations(written, "dashboard_url"))


def test_alerts_lead_where_they_are_told_to(tmp_path: Path) -> None:
    """Both addresses are taken, with or without a slash at their end."""
    result = run(
        tmp_path, "--grafana-url", "https://grafana.example/of/us/", "--runbooks-url", "https://wiki.example/~shop"
    )
    assert result.exit_code == 0
    assert "https://grafana.example/of/us/d/snakepit-overview" in result.stdout
    assert all(link.startswith("https://grafana.example/of/us/d/") for link in annotations(tmp_path, "dashboard_url"))
    links = list(annotations(tmp_path, "runbook_url"))
    assert links == [f"https://wiki.example/~shop/{alert.runbook}" for alert in alerts()]
    for part in ("prometheus", "grafana"):
        assert not any(command.RUNBOOKS in text for text in contents(tmp_path / part).values())


def test_addresses_replaced_are_those_that_are_built() -> None:
    """The command looks for what `dashboards.rules` writes, which is no part of the wheel."""
    assert (command.RUNBOOKS, command.GRAFANA) == (rules.RUNBOOKS, rules.GRAFANA)


@pytest.mark.parametrize("option", ["--grafana-url", "--runbooks-url"])
@pytest.mark.parametrize("url", ["grafana", "ftp://x/y", "http://x y", "http://x/{{ .Value }}", "http://x/'\"", " "])
def test_what_is_no_address_is_refused(option: str, url: str, tmp_path: Path) -> None:
    """What would break the files that it is put into is wrong usage, and nothing is written."""
    result = run(tmp_path / "out", option, url)
    assert result.exit_code == 2
    assert option in result.stderr
    assert not (tmp_path / "out").exists()


def test_again_changes_nothing(tmp_path: Path) -> None:
    """What is there and as it should be is left alone."""
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "0 files written" in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_files_that_differ_are_not_overwritten(tmp_path: Path) -> None:
    """They are named, and nothing is written: neither they nor what is missing."""
    run(tmp_path)
    mine, missing = tmp_path / "compose.yaml", tmp_path / "grafana" / "snakepit-overview.json"
    mine.write_text("services: {}\n")
    missing.unlink()
    before = contents(tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert str(mine) in result.stderr
    assert "snakepit-overview" not in result.stderr
    assert contents(tmp_path) == before
    assert run(tmp_path, "--force").exit_code == 0
    assert mine.read_text() == (DASHBOARDS / "compose.yaml").read_text()
    assert missing.exists()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """A folder may have more in it."""
    (tmp_path / "grafana").mkdir()
    mine = tmp_path / "grafana" / "mine.json"
    mine.write_text("{}")
    assert run(tmp_path, "--force").exit_code == 0
    assert mine.read_text() == "{}"


def test_what_is_in_the_way_is_found_first(tmp_path: Path) -> None:
    """A folder in a file's place, or a file in a folder's, is told, and nothing is written, by force neither."""
    (tmp_path / "a" / "compose.yaml").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "runbooks").write_text("")
    (tmp_path / "c").write_text("")
    before = contents(tmp_path)
    for name, culprit in (("a", "a/compose.yaml"), ("b", "b/runbooks"), ("c", "c")):
        result = run(tmp_path / name, "--force")
        assert result.exit_code == 1
        assert f"{tmp_path / culprit} is " in result.stderr
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all can be written, none of it takes its place, and nothing is left over."""
    run(tmp_path, "--grafana-url", "http://before")
    before = contents(tmp_path)
    write, left = Path.write_text, iter(range(1))

    def full(path: Path, *arguments: Any, **keywords: Any) -> int:
        if next(left, None) is None:
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments, **keywords)

    (tmp_path / "compose.yaml").unlink()
    del before["compose.yaml"]
    monkeypatch.setattr(Path, "write_text", full)
    result = run(tmp_path, "--grafana-url", "http://after", "--force")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert contents(tmp_path) == before


def test_containers_can_read_it(tmp_path: Path) -> None:
    """Whatever the umask is: containers read as users of their own."""
    before = os.umask(0o077)
    try:
        run(tmp_path / "out")
    finally:
        os.umask(before)
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


@pytest.mark.timeout(300)
def test_a_wheel_has_all_of_it(tmp_path: Path) -> None:
    """Built, and installed where nothing is of the checkout, the command writes the same files."""
    wheels, site, out = tmp_path / "wheels", tmp_path / "site", tmp_path / "out"
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = wheels.iterdir()
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*python, *pip, "--target", site, wheel], check=True, capture_output=True)
    done = subprocess.run(
        [*python, "snakepit_otel", "dashboards", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "docker compose -f out/compose.yaml up -d" in done.stdout
    assert (site / "snakepit_otel" / "_dashboards").is_dir()
    installed = contents(out)
    run(out, "--force")
    assert installed == contents(out)
