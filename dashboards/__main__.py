"""Write the dashboards and rules, or say whether they are what was committed.

python -m dashboards            write dashboards/grafana/*.json, dashboards/prometheus/*.yaml, and tables in docs/
python -m dashboards --check    write nothing, exit 1 if one of them is out of date
"""

from __future__ import annotations

import sys

from dashboards.build import GRAFANA, HERE, files


def main(arguments: list[str]) -> int:
    """Write, or check; return the exit status."""
    try:
        made = files()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    stale = {path for path, text in made.items() if not path.exists() or path.read_text() != text}
    left = set(GRAFANA.glob("*.json")) - made.keys()
    if "--check" in arguments:
        for path in sorted(stale | left):
            print(f"{path.relative_to(HERE.parent)} is not what is built: run make dashboards", file=sys.stderr)
        return int(bool(stale | left))
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made[path])
    for path in left:
        path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
