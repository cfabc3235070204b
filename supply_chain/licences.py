"""Licences of what is installed, built and started: `make licences` lists them.

Exit status: 0 where all are known and none is a copyleft that reaches what stands beside it, 1 where one is not or is,
69 where none is and something is not on this machine to be looked at.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import yaml

from snakepit_otel.common.printable import printable
from supply_chain.audit import GRAMMARS, programs
from supply_chain.lock import ROOT, locked

COPYLEFT = re.compile(r"\bA?GPL|Affero|GNU General Public|Server Side Public|\bSSPL", re.IGNORECASE)
FOUND, NOT_EVERYTHING = 1, 69
# Words that a licence's text is known by; others are not known, and that is shown.
_BEGINNINGS = (
    ("Apache-2.0", re.compile(r"Apache License,?\s+Version 2\.0")),
    ("MPL-2.0", re.compile(r"Mozilla Public License,? (?:Version|v\.) ?2\.0", re.IGNORECASE)),
    ("MIT", re.compile(r"Permission is hereby granted, free of charge")),
    ("ISC", re.compile(r"Permission to use, copy, modify, and(?:/or)? distribute this software")),
    ("BSD", re.compile(r"Redistribution and use in source and binary forms")),
    ("CC0-1.0", re.compile(r"CC0 1\.0 Universal")),
    ("Unlicense", re.compile(r"This is free and unencumbered software")),
)
# Images that dashboards/compose.yaml names for who wants to look at telemetry. We neither ship, build nor start them;
# whoever runs the file gets them unchanged from those who made them.
IMAGES = {
    "otel/opentelemetry-collector-contrib": "Apache-2.0",
    "prom/prometheus": "Apache-2.0",
    "grafana/tempo": "AGPL-3.0-only",
    "grafana/loki": "AGPL-3.0-only",
    "grafana/grafana": "AGPL-3.0-only",
}


@dataclass(frozen=True)
class Part:
    """Something that we stand on."""

    kind: str
    name: str
    version: str
    # None where it is not on this machine, so that nothing is known of it.
    licence: str | None
    # Whether we ship, build or start it.
    ours: bool = True

    @property
    def is_wrong(self) -> bool:
        """Whether it is ours, and its licence cannot be."""
        return self.ours and self.licence is not None and (not self.licence or bool(COPYLEFT.search(self.licence)))


def declared(package: Distribution) -> str:
    """Return the licence that a package names; of one that only has it as a file, the file's beginning."""
    metadata = package.metadata
    fields = [*(metadata.get_all("License-Expression") or []), *(metadata.get_all("License") or [])]
    fields += [field for field in metadata.get_all("Classifier") or [] if field.startswith("License ::")]
    files = [file for file in package.files or [] if re.search(r"(?i)(^|/)licen[cs]e", str(file))]
    # Some have a whole text in the field, with those of what they bundle.
    return "\n".join(field[:200] for field in fields if field) or (files[0].read_text()[:200] if files else "")


def python() -> Iterator[Part]:
    for package in locked()[0]:
        if not package.is_for_here:
            yield Part("Python", package.name, package.version, "not for this machine or Python", ours=False)
            continue
        try:
            licence: str | None = declared(distribution(package.name))
        except PackageNotFoundError:
            licence = None
        yield Part("Python", package.name, package.version, licence)


def node() -> Iterator[Part]:
    packages = json.loads((GRAMMARS / "package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        if name:
            yield Part("Node.js", name.removeprefix("node_modules/"), package["version"], package["license"])


def go() -> Iterator[Part]:
    """Yield the modules in the programs that scripts have built here, as the programs name them themselves."""
    compiler = shutil.which("go")
    built = programs() if compiler else []
    modules = {module for program in built for module in _modules(str(compiler), program)}
    if not modules:
        yield Part("Go", "modules of the collector and Prometheus", "", None)
        return
    cache = Path(_output(str(compiler), "env", "GOMODCACHE").strip())
    for name, version in sorted(modules):
        # Capitals are written so, for file systems that know none.
        folder = cache / (re.sub(r"[A-Z]", lambda found: f"!{found[0].lower()}", name) + f"@{version}")
        yield Part("Go", name, version, _of_text(folder) if folder.is_dir() else None)


def images() -> Iterator[Part]:
    services = yaml.safe_load((ROOT / "dashboards" / "compose.yaml").read_text())["services"]
    for service in services.values():
        name, _, version = service["image"].partition(":")
        yield Part("image", name, version, IMAGES.get(name, ""), ours=False)


def parts() -> list[Part]:
    return [*python(), *node(), *go(), *images()]


def _of_text(folder: Path) -> str:
    """Return the licence that a folder's own text is; empty where it is none that is known."""
    for file in sorted(folder.iterdir()):
        if re.match(r"(?i)(licen[cs]e|copying|unlicense)", file.name) and file.is_file():
            text = file.read_text(errors="replace")[:4_000]
            if COPYLEFT.search(text[:300]):
                return text[:100]
            if found := next((name for name, words in _BEGINNINGS if words.search(text)), None):
                return found
    return ""


def _modules(compiler: str, program: Path) -> Iterator[tuple[str, str]]:
    for line in _output(compiler, "version", "-m", str(program)).splitlines():
        fields = line.split()
        if fields and fields[0] in ("dep", "=>"):
            yield fields[1], fields[2]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603


def status_of(found: list[Part]) -> int:
    if any(part.is_wrong for part in found):
        return FOUND
    return NOT_EVERYTHING if any(part.licence is None for part in found) else 0


def main() -> int:
    found = parts()
    for part in found:
        licence = "not on this machine" if part.licence is None else part.licence.split("\n")[0] or "UNKNOWN"
        mark = "WRONG " if part.is_wrong else ""
        mark += "(not ours to ship or start) " if part.kind == "image" else ""
        line = f"{part.kind:<8} {part.name} {part.version}: {mark}{printable(licence, 100)}"
        sys.stdout.write(line + "\n")
    counted = {kind: sum(part.kind == kind for part in found) for kind in dict.fromkeys(part.kind for part in found)}
    sys.stdout.write(", ".join(f"{number} {kind}" for kind, number in counted.items()) + "\n")
    return status_of(found)


if __name__ == "__main__":
    sys.exit(main())
