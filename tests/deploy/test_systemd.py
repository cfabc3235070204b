"""The systemd unit, as systemd reads it, and run by a real service manager where this user may start one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.users import needs_root

UNIT = ROOT / "deploy" / "systemd" / "snakepit-otel.service"
MANAGER = Path("/lib/systemd/systemd")
# A user's manager in a container has no say in these; and with /tmp and /home hidden, the tests are.
NOT_HERE = (
    *("PrivateTmp", "PrivateUsers", "ProtectHome", "ProtectProc"),
    *("ProtectControlGroups", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
)
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")

# In a namespace of its own: a manager wants to see that the machine was booted with systemd.
RUN = """
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
mkdir -m 700 /run/user
export XDG_RUNTIME_DIR=/run/user HOME="$1" PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
mkdir -p "$HOME/.config/systemd/user"
cp "$1/snakepit-otel.service" "$HOME/.config/systemd/user/"
"$2" --user --unit=basic.target --log-target=null &
manager=$!
trap 'kill "$manager"; wait "$manager"' EXIT
until systemctl --user list-units >/dev/null 2>&1; do sleep 0.05; done
pid() { systemctl --user show --property=MainPID --value snakepit-otel; }
call() { "$3" -m snakepit_otel call total "values=[1, 2]" --address unix:/run/user/snakepit-otel/authority.sock; }
systemctl --user start snakepit-otel
first=$(pid)
echo "started $(systemctl --user is-active snakepit-otel)"
echo "called $(call "$@")"
systemctl --user reload snakepit-otel
while [ -d "/proc/$first" ]; do sleep 0.05; done
echo "reloaded $(systemctl --user is-active snakepit-otel) $([ "$first" != "$(pid)" ] && echo 'by another process')"
echo "called $(call "$@")"
systemctl --user stop snakepit-otel
echo "stopped $(systemctl --user show --property=Result --property=NRestarts --value snakepit-otel | xargs)"
"""


def _may_run_a_manager() -> bool:
    if not MANAGER.exists() or shutil.which("unshare") is None:
        return False
    mounting = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(mounting, capture_output=True, check=False).returncode == 0


def _installed(unit: str, directory: Path) -> str:
    """Return the unit as somebody would install it here."""
    settings = directory / "snakepit.toml"
    settings.write_text('adapter = "tests.deploy.adapter:Sums"\n[pool]\nsize = 1\n')
    changes = {
        "/opt/snakepit-otel/venv/bin/snakepit-otel": f"{sys.executable} -m snakepit_otel",
        "/etc/snakepit-otel/snakepit.toml": str(settings),
        "WorkingDirectory=/opt/snakepit-otel": f"WorkingDirectory={ROOT}",
        "/run/snakepit-otel": "%t/snakepit-otel",
        "User=snakepit-otel\n": f"StandardError=append:{directory}/errors\n",
    }
    for before, after in changes.items():
        assert before in unit
        unit = unit.replace(before, after)
    return unit


@needs_systemd
def test_the_unit_is_read_without_complaint(tmp_path: Path) -> None:
    """systemd knows every line, and rates what the service may do as little."""
    (tmp_path / UNIT.name).write_text(_installed(UNIT.read_text(), tmp_path))
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", UNIT], capture_output=True, text=True, check=False
    )
    exposure = re.search(r"exposure level for snakepit-otel.service: ([\d.]+)", rated.stdout)
    assert exposure is not None
    assert float(exposure[1]) < 2.0


@needs_root
@pytest.mark.skipif(not _may_run_a_manager(), reason="there is no systemd here, or no namespace for it")
def test_the_service_is_started_upgraded_and_stopped(tmp_path: Path) -> None:
    """A real manager starts it, sees a reload as a change of its main process, and stops it in good order."""
    unit = _installed(UNIT.read_text(), tmp_path)
    unit = re.sub(rf"^({'|'.join(NOT_HERE)})=.*\n", "", unit, flags=re.MULTILINE)
    (tmp_path / UNIT.name).write_text(unit)
    ran = subprocess.run(
        ["unshare", "--mount", "bash", "-c", RUN, "run", tmp_path, MANAGER, sys.executable],
        cwd=ROOT,
        env={**os.environ, "OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.splitlines() == [
        "started active",
        "called 3",
        "reloaded active by another process",
        "called 3",
        "stopped success 0",
    ], "".join(
        [ran.stderr, *((tmp_path / file).read_text() for file in ("manager", "errors") if (tmp_path / file).exists())]
    )
