"""Licences of what is installed, built and run: none asks for the source of what only stands beside it."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
import yaml

from tests.processes import ROOT

LOCKED = sorted(set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)))
COPYLEFT = re.compile(r"\bA?GPL|Affero|GNU General Public", re.IGNORECASE)
GRAMMARS = json.loads((ROOT / "tests" / "dashboards" / "grammars" / "package-lock.json").read_text())["packages"]
PARTS = ("receivers", "processors", "exporters", "extensions", "providers")
# Those whose programs and libraries are all under Apache-2.0.
OWNERS = ("go.opentelemetry.io", "github.com/open-telemetry", "github.com/prometheus")


def declared(package: Distribution) -> str:
    """Return what a package says of its licence; of one that only has it as a file, the file's beginning."""
    said = package.metadata
    fields = [said.get("License-Expression"), said.get("License")]
    fields += [field for field in said.get_all("Classifier") or [] if field.startswith("License ::")]
    files = [file for file in package.files or [] if re.search(r"(?i)(^|/)licen[cs]e", str(file))]
    # Some have a whole text in the field, with those of what they bundle.
    return "\n".join(field[:200] for field in fields if field) or (files[0].read_text()[:200] if files else "")


@pytest.mark.parametrize("name", LOCKED)
def test_python_packages_are_free_of_copyleft(name: str) -> None:
    """Each that the lock file has says under what it is, and that is neither GPL nor AGPL."""
    try:
        licence = declared(distribution(name))
    except PackageNotFoundError:
        pytest.skip("not for this Python or machine")
    assert licence
    assert not COPYLEFT.search(licence), licence


def test_grammars_are_free_of_copyleft() -> None:
    """Node.js packages are in exact versions, with their hashes, and from no machine's own address."""
    packages = {name: package for name, package in GRAMMARS.items() if name}
    assert packages
    for name, package in packages.items():
        assert package["license"] in ("Apache-2.0", "MIT"), name
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
    assert GRAMMARS[""]["dependencies"] == {
        name.removeprefix("node_modules/"): package["version"] for name, package in packages.items()
    }


def test_go_programs_are_free_of_copyleft() -> None:
    """What scripts build is of those of whom we have looked; Grafana's own servers, under AGPL, are not among them."""
    texts = [path.read_text() for path in (ROOT / "scripts").glob("install-*")]
    built = {module for text in texts for module in re.findall(r"\b(?:github\.com|go\.\w+\.\w+)/[\w./-]+", text)}
    manifest = yaml.safe_load((ROOT / "collector" / "builder.yaml").read_text())
    parts = {entry["gomod"] for kind in PARTS for entry in manifest[kind]}
    assert built
    assert parts
    for module in built | parts:
        assert module.startswith(tuple(f"{owner}/" for owner in OWNERS)), module
