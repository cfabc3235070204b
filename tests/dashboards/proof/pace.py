"""How much quicker time passes in the proof than in the field, and what has to keep up with that."""

from __future__ import annotations

FACTOR = 60
"""What lasts an hour takes a minute, and the shortest window, five minutes, is five seconds."""
SCRAPE_SECONDS = 0.5
"""From one look of Prometheus to the next: ten of them in the shortest window."""
EXPORT_SECONDS = 0.5
"""From one export of metrics to the next."""
RATE_INTERVAL = "4s"
"""What Grafana would choose for `$__rate_interval`: four scrapes at least, and some more where the machine is busy."""
STEP_SECONDS = 1
"""Between two points of a panel; Grafana's `$__interval`."""
EXPIRY_SECONDS = 15
"""How long the collector remembers a series that nobody sends any more. Longer than a busy machine holds up an export,
or a deployment that is well would be missed; then AuthorityDown looks back as far again."""
GIVING_UP_SECONDS = 5
"""How long the collector tries to reach a back end that is away."""
QUEUE_SIZE = 100
"""How many spans, and log records, the collector keeps for a back end: less than comes while it tries."""
