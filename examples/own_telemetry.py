"""Spans, metrics, attributes, baggage and log lines of a tool's own: python examples/own_telemetry.py.

They go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names; without one, the program prints the same.
"""

import asyncio
import logging

from opentelemetry import baggage, context, metrics, trace

from snakepit_otel import BaseAdapter, Snakepit, telemetry, tool

# By OpenTelemetry's API, as in any other program. The worker has set up the SDK before it imports this.
tracer = trace.get_tracer("shop")
meter = metrics.get_meter("shop")
orders = meter.create_counter("shop.orders", unit="{order}", description="Orders that were priced.")
amounts = meter.create_histogram("shop.order.amount", unit="EUR", description="What an order costs.")
log = logging.getLogger("shop")
PRICES = {"apple": 0.5, "pear": 0.75}


def price(items: list[str]) -> float:
    with tracer.start_as_current_span("look up prices", attributes={"shop.items": len(items)}):
        return sum(PRICES[item] for item in items)


class Shop(BaseAdapter):
    @tool
    def order(self, items: list[str]) -> float:
        """Return what the items cost."""
        # On the span of the tool itself.
        trace.get_current_span().set_attribute("shop.first_item", items[0])
        # On the request's spans, in the worker and in the authority.
        tenant = str(baggage.get_baggage("tenant.id") or "unknown")
        telemetry.set_request_attribute("tenant.id", tenant)
        amount = price(items)
        orders.add(1, {"shop.currency": "EUR"})
        amounts.record(amount, {"shop.currency": "EUR"})
        log.info("order of %.2f EUR", amount)
        return amount


async def main() -> None:
    process = telemetry.setup("shop")
    async with Snakepit(Shop, workers=1) as pit:
        # Baggage goes with the request to whatever it reaches.
        token = context.attach(baggage.set_baggage("tenant.id", "acme"))
        try:
            print(await pit.execute("order", {"items": ["apple", "pear"]}))
        finally:
            context.detach(token)
    process.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
