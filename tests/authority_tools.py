"""Tools that run in the authority."""

from snakepit_otel import AuthorityContext, authority_tool


@authority_tool
def greet(context: AuthorityContext, name: str) -> str:
    """Greet somebody."""
    assert context.sessions
    return f"hello {name}"


@authority_tool(exposed=False)
async def secret(context: AuthorityContext) -> str:
    """Not for adapters."""
    return f"secret of {context.session_id}"
