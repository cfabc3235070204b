"""`snakepit-otel dashboards`: write the dashboards, rules and runbooks of this version, and what runs them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, NoReturn

import typer

import snakepit_otel
from snakepit_otel.cli.new.writer import is_current, write
from snakepit_otel.cli.output import EXIT_TOOL_FAILED, console, error_console, fail, lines
from snakepit_otel.errors import ConfigurationError

# Addresses in the files as built: nothing is at the first, and compose.yaml has Grafana at the second.
RUNBOOKS = "https://snakepit-otel.invalid/docs/runbooks"
GRAFANA = "http://localhost:3000"
_FOLDERS_WITH_LINKS = {"grafana", "prometheus"}

# What a URL can have in YAML, in JSON and in a template of Prometheus' without meaning anything there.
_URL = re.compile(r"(https?|file)://[\w./~%+:@,;=!$&()*\[\]-]+")

_PACKAGE = Path(snakepit_otel.__file__).parent
_IN_WHEEL = _PACKAGE / "_dashboards"  # see force-include in pyproject.toml
_PARTS = ("compose.yaml", "compose", "provisioning", "grafana", "prometheus")


def dashboards(
    folder: Annotated[Path, typer.Argument(help="The folder to write to.")] = Path("observability"),
    grafana_url: Annotated[
        str, typer.Option(help="The address of your Grafana; alerts link to the dashboards there.")
    ] = GRAFANA,
    runbooks_url: Annotated[
        str | None,
        typer.Option(help="The address of your runbooks; alerts link to them.", show_default="the written ones"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Write Grafana dashboards, alerts with their runbooks, and a docker compose file that runs them.

    Existing files that differ are not overwritten; nothing is written then.

    Exit codes: 0 done, 1 a file differs, or cannot be written, 2 wrong usage.
    """
    try:
        links = {
            GRAFANA: _checked("--grafana-url", grafana_url),
            RUNBOOKS: _checked("--runbooks-url", runbooks_url or (folder.resolve() / "runbooks").as_uri()),
        }
        wanted = dict(_files(_sources(), links))
    except ConfigurationError as error:
        fail(error)
    try:
        stale = _changed(folder, wanted, force)
        # Containers read the files as other users; nothing in them is secret.
        umask = os.umask(0o022)
        try:
            write(folder, stale, force=True)
        finally:
            os.umask(umask)
    except OSError as error:
        _fail(f"{error}; nothing was written")
    _print(f"{len(stale)} files written to {folder}, {len(wanted) - len(stale)} were up to date\n")
    _print("To see them with the telemetry of this installation:")
    _print(f"  docker compose -f {folder / 'compose.yaml'} up -d")
    _print("  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 snakepit-otel serve ADAPTER")
    _print(f"  {links[GRAFANA]}/d/snakepit-overview")


def _checked(option: str, url: str) -> str:
    if not _URL.fullmatch(url):
        raise ConfigurationError(f"{option} {url!r} is no address of the kind http://HOST:PORT/PATH")
    return url.rstrip("/")


def _sources() -> Mapping[str, Path]:
    """Return the source of each part, by the part's name in the written folder."""
    if _IN_WHEEL.is_dir():
        return {path.name: path for path in _IN_WHEEL.iterdir()}
    checkout = _PACKAGE.parent
    parts = {name: checkout / "dashboards" / name for name in _PARTS}
    parts |= {"otel-collector.yaml": checkout / "otel-collector.yaml", "runbooks": checkout / "docs" / "runbooks"}
    if missing := sorted(name for name, path in parts.items() if not path.exists()):
        raise ConfigurationError(f"this installation has no dashboards: {', '.join(missing)} is missing; reinstall it")
    return parts


def _files(sources: Mapping[str, Path], links: Mapping[str, str]) -> Iterator[tuple[PurePath, str]]:
    for part, source in sorted(sources.items()):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.suffix not in {".json", ".md", ".yaml"}:
                continue
            text = path.read_text()
            if part in _FOLDERS_WITH_LINKS:
                for built, wanted in links.items():
                    text = text.replace(built, wanted)
            yield PurePath(part) / path.relative_to(source), text


def _changed(folder: Path, wanted: Mapping[PurePath, str], force: bool) -> dict[PurePath, str]:
    """Return the files to write. Exits if one of them has other text, unless `force` is set."""
    stale = {name: text for name, text in wanted.items() if not is_current(folder / name, text)}
    differ = sorted(str(folder / name) for name in stale if (folder / name).is_file())
    if differ and not force:
        _fail(f"these files differ, so nothing was written; --force overwrites them: {', '.join(differ)}")
    return stale


def _fail(text: str) -> NoReturn:
    error_console.print(f"error: {text}", soft_wrap=True)
    raise typer.Exit(EXIT_TOOL_FAILED)


def _print(text: str) -> None:
    console.print(lines(text), soft_wrap=True)
