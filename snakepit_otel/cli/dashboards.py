"""`snakepit-otel dashboards`: write the dashboards, rules and runbooks of this version, and what runs them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, NoReturn

import typer

import snakepit_otel
from snakepit_otel.cli.output import EXIT_TOOL_FAILED, complaints, console, fail, lines
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.atomic_files import refuse_what_is_no_file

RUNBOOKS = "https://snakepit-otel.invalid/docs/runbooks"
"""Where the rules as they are built say that runbooks are, and nothing is."""
GRAFANA = "http://localhost:3000"
"""Where they say that Grafana is, which is where compose.yaml has it."""
_LINKING = {"grafana", "prometheus"}
"""The folders with files that say so."""

# What a URL can have in YAML, in JSON and in a template of Prometheus' without meaning anything there.
_URL = re.compile(r"(https?|file)://[\w./~%+:@,;=!$&()*\[\]-]+")

_PACKAGE = Path(snakepit_otel.__file__).parent
_INSTALLED = _PACKAGE / "_dashboards"
"""Where a wheel has them; see force-include in pyproject.toml."""
_PARTS = ("compose.yaml", "compose", "provisioning", "grafana", "prometheus")


def dashboards(
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path("observability"),
    grafana_url: Annotated[
        str, typer.Option(help="Where your Grafana is; alerts link to the dashboards there.")
    ] = GRAFANA,
    runbooks_url: Annotated[
        str | None,
        typer.Option(help="Where your runbooks are; alerts link to them.", show_default="those that are written"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Write Grafana dashboards, alerts with their runbooks, and all it takes to see them with docker compose.

    Files of yours are not overwritten: if one differs from what would be written, nothing is.

    Exit codes: 0 done, 1 a file differs, or cannot be written, 2 wrong usage.
    """
    try:
        links = {
            GRAFANA: _checked("--grafana-url", grafana_url),
            RUNBOOKS: _checked("--runbooks-url", runbooks_url or (folder.resolve() / "runbooks").as_uri()),
        }
        wanted = {folder / name: text for name, text in _files(_sources(), links)}
    except ConfigurationError as error:
        fail(error)
    try:
        stale = {path: text for path, text in wanted.items() if not _has(path, text)}
        _refuse_what_is_in_the_way(folder, stale, force)
        _write(folder, stale)
    except OSError as error:
        _give_up(str(error))
    _say(f"{len(stale)} files written to {folder}, {len(wanted) - len(stale)} were as they should be\n")
    _say("To see them, with what this installation tells of itself:")
    _say(f"  docker compose -f {folder / 'compose.yaml'} up -d")
    _say("  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 snakepit-otel serve ADAPTER")
    _say(f"  {links[GRAFANA]}/d/snakepit-overview")


def _checked(option: str, url: str) -> str:
    if not _URL.fullmatch(url):
        raise ConfigurationError(f"{option} {url!r} is no address of the kind http://HOST:PORT/PATH")
    return url.rstrip("/")


def _sources() -> Mapping[str, Path]:
    """Return where each part is, by its name in the folder that is written."""
    if _INSTALLED.is_dir():
        return {path.name: path for path in _INSTALLED.iterdir()}
    checkout = _PACKAGE.parent
    parts = {name: checkout / "dashboards" / name for name in _PARTS}
    parts |= {"otel-collector.yaml": checkout / "otel-collector.yaml", "runbooks": checkout / "docs" / "runbooks"}
    if missing := sorted(name for name, path in parts.items() if not path.exists()):
        raise ConfigurationError(f"this installation has no dashboards: {', '.join(missing)} is missing; reinstall it")
    return parts


def _files(sources: Mapping[str, Path], links: Mapping[str, str]) -> Iterator[tuple[PurePath, str]]:
    """Yield each file's name and text, with links that lead where they should."""
    for part, source in sorted(sources.items()):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.suffix not in {".json", ".md", ".yaml"}:
                continue
            text = path.read_text()
            if part in _LINKING:
                for built, wanted in links.items():
                    text = text.replace(built, wanted)
            yield PurePath(part) / path.relative_to(source), text


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _refuse_what_is_in_the_way(folder: Path, stale: Mapping[Path, str], force: bool) -> None:
    differ = sorted(path for path in stale if path.is_file())
    if differ and not force:
        _give_up(
            f"these differ from what would be written, so nothing was; --force overwrites them: "
            f"{', '.join(map(str, differ))}"
        )
    # What no force helps against, found before anything is written.
    for path in stale:
        if path.is_dir():
            _give_up(f"{path} is a folder, and nothing was written")
        above = [folder, *(folder / part for part in path.relative_to(folder).parents)]
        for one in above:
            if one.exists() and not one.is_dir():
                _give_up(f"{one} is no folder, and nothing was written")
        refuse_what_is_no_file(path)


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    """Write all files beside their places first, so that a full disk leaves what was there as it was."""
    if not files:
        return
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".snakepit-", dir=folder))
    try:
        for number, text in enumerate(files.values()):
            made = aside / str(number)
            made.write_text(text)
            # Containers read them as users of their own, whatever our umask is; there is nothing secret in them.
            made.chmod(0o644)
        for number, path in enumerate(files):
            for parent in reversed(path.relative_to(folder).parents):
                if not (folder / parent).exists():
                    (folder / parent).mkdir()
                    (folder / parent).chmod(0o755)
            (aside / str(number)).replace(path)
    finally:
        shutil.rmtree(aside)


def _give_up(text: str) -> NoReturn:
    complaints.print(f"error: {text}", soft_wrap=True)
    raise typer.Exit(EXIT_TOOL_FAILED)


def _say(text: str) -> None:
    console.print(lines(text), soft_wrap=True)
