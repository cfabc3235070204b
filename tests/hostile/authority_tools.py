"""Plain tools of the authority."""

import time

from snakepit_otel import AuthorityContext, authority_tool


@authority_tool
def stuck(context: AuthorityContext, seconds: float) -> None:
    """Hold a thread for so many seconds, whatever its caller does."""
    time.sleep(seconds)


@authority_tool
def quick(context: AuthorityContext) -> str:
    """Answer at once."""
    return "quick"
