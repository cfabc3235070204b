"""An adapter that does with secrets what code does by mistake."""

from __future__ import annotations

import logging
import os

from snakepit_otel import BaseAdapter, tool


class Leaking(BaseAdapter):
    """Logs secrets, and raises errors with secrets."""

    @tool
    def leak(self) -> None:
        """Do both."""
        url = f"https://app:{os.environ['LEAK_DB_PASSWORD']}@db/shop?sig={os.environ['LEAK_SAS']}"
        logging.getLogger("leaking").warning("connecting to %s with %s", url, os.environ["LEAK_API_KEY"])
        raise ConnectionError(f"{url} refused the token={os.environ['LEAK_API_KEY']}")
