"""The pace of the proof: time passes quicker than in the field, and these settings keep up with that."""

from __future__ import annotations

from tests.dashboards.proof.hurry import Hurry

HURRY = Hurry(factor=60, window=4.0, wait=6.0)
"""What lasts an hour takes a minute. A window has four scrapes at least, and what alerts wait for is so at six of them,
since on a busy machine one now and then comes too late."""
SCRAPE_SECONDS = 1.0
"""From one look of Prometheus to the next; it is as patient as that."""
EXPORT_SECONDS = 0.5
"""From one export of metrics to the next."""
RATE_INTERVAL = "4s"
"""What Grafana would choose for `$__rate_interval`: four scrapes."""
STEP_SECONDS = 1
"""Between two points of a panel; Grafana's `$__interval`."""
EXPIRY_SECONDS = 15
"""How long the collector remembers a series that nobody sends any more. Longer than a busy machine holds up an export,
or a deployment that is well would be missed; then AuthorityDown looks back as far again."""
GIVING_UP_SECONDS = 5
"""How long the collector tries to reach a back end that is away."""
QUEUE_SIZE = 200
"""How many spans, and log records, the collector keeps for a back end: less than comes while it tries."""
