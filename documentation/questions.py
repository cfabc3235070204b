"""Questions of people who come to the site for the first time, and the page that the search must bring up for each.

python -m documentation.questions site/search/search_index.json     search for each, and print where its page came
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

# The page must be among so many.
FIRST = 5
_SEARCH = Path(__file__).with_name("search.js")
# What people type, and the page with the answer.
QUESTIONS = {
    "authenticate": "middleware.html",
    "systemd": "recipes/systemd.html",
    "docker": "recipes/docker.html",
    "own span": "own-telemetry.html",
    "own metric": "own-telemetry.html",
    "tenant on request span": "own-telemetry.html",
    "database pool per worker": "recipes/db-pool.html",
    "gpu per worker": "recipes/gpu-pools.html",
    "cancel request": "operating.html",
    "retry": "pools.html",
    "queue length": "operating.html",
    "upgrade adapter": "recipes/upgrade.html",
    "upgrade server": "recipes/upgrade.html",
    "leak test": "testing.html",
    "celery": "recipes/from-celery.html",
    "ray serve": "recipes/from-ray-serve.html",
    "rate limit": "recipes/tenant-limits.html",
    "sessions at restart": "sessions.html",
}


def found(index: Path, queries: list[str]) -> list[list[str]] | None:
    """Return the pages that a built site shows for each query, best first; None where there is no Node.js."""
    node = shutil.which("node")
    if node is None:
        return None
    (worker,) = index.parent.parent.glob("assets/javascripts/workers/search.*.js")
    command = [node, str(_SEARCH), str(worker), str(index)]
    completed = subprocess.run(command, input=json.dumps(queries), capture_output=True, text=True, check=True)  # noqa: S603
    return [list(pages) for pages in json.loads(completed.stdout)]


def main(arguments: list[str]) -> int:
    """Print, for each question, the place of its page in the search; fail where a page is not among the first."""
    pages = found(Path(arguments[0]), list(QUESTIONS))
    if pages is None:
        print("the search was not tried: there is no Node.js")
        return 0
    missing = 0
    for (question, page), places in zip(QUESTIONS.items(), pages, strict=True):
        place = places.index(page) + 1 if page in places else None
        is_first = place is not None and place <= FIRST
        missing += not is_first
        shown = f"{place}." if place else "not found"
        others = "" if is_first else f"   first are {', '.join(places[:FIRST]) or 'none'}"
        print(f"{question:28} {page:32} {shown}{others}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
