"""An adapter and a tool of the authority that log at two levels, and so do libraries."""

from __future__ import annotations

import logging

from snakepit_otel import AuthorityContext, BaseAdapter, authority_tool, tool

_log = logging.getLogger("shop")
_library = logging.getLogger("urllib3.connectionpool")


def log_all(who: str) -> None:
    """Log as a user's code, one of its modules, and a library."""
    _log.info("%s informs", who)
    _log.debug("%s debugs", who)
    logging.getLogger("shop.details").debug("%s details", who)
    _library.info("%s fetches", who)


class Logging(BaseAdapter):
    """Logs in a worker."""

    @tool
    def speak(self) -> None:
        """Log."""
        log_all("the worker")


@authority_tool
def speak_here(context: AuthorityContext) -> None:
    """Log in the authority."""
    log_all("the authority")
