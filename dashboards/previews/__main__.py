"""Draw every page, light and dark, from the results that the proof of the dashboards keeps.

python -m dashboards.previews RESULTS PICTURES    read RESULTS/<uid>.json, write PICTURES/<page>-<theme>.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dashboards.previews.colours import DARK, LIGHT
from dashboards.previews.pictures import picture
from dashboards.previews.results import read

GRAFANA = Path(__file__).parents[1] / "grafana"


def main(arguments: list[str]) -> int:
    """Draw; return the exit status."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    results, pictures = map(Path, arguments)
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = {}
    try:
        for path in sorted(GRAFANA.glob("*.json")):
            dashboard = json.loads(path.read_text())
            found = read(results / path.name)
            for theme in (LIGHT, DARK):
                name = f"{path.stem.removeprefix('snakepit-')}-{theme.name}.png"
                drawn[name] = picture(dashboard, found, theme).png()
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: the proof was skipped, or knew no such page", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, png in drawn.items():
        (pictures / name).write_bytes(png)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
