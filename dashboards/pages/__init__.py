"""The pages, in the order in which one looks at them."""

from dashboards.pages import adapters, overview, pools, rpc, session, sessions, stores, telemetry, zero_copy

PAGES = (
    overview.page,
    sessions.page,
    stores.page,
    pools.page,
    adapters.page,
    rpc.page,
    zero_copy.page,
    telemetry.page,
    session.page,
)
