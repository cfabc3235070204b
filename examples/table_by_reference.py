"""A table, to a worker and back, without its bytes crossing gRPC: python examples/table_by_reference.py."""

import asyncio

import pyarrow as pa

from snakepit_otel import BaseAdapter, Snakepit, tool, zero_copy


class Bookkeeper(BaseAdapter):
    @tool
    def totals(self, orders: pa.Table) -> pa.Table:
        """Add up the amounts of each city. The columns lie in the caller's memory."""
        return orders.group_by("city").aggregate([("amount", "sum")]).sort_by("city")


async def main() -> None:
    async with Snakepit(adapter=Bookkeeper, workers=1) as pit:
        cities = ["Lima", "Oslo", None, "Pune"] * 250_000
        orders = pa.table({"city": cities, "amount": range(1_000_000)})
        # Nulls, text, dictionaries, nested types and slices are all fine; other libraries' tables, too.
        ref = zero_copy.from_arrow(orders)
        print(ref.kind, ref.shape)
        for row in (await pit.execute("totals", {"orders": ref})).to_pylist():
            print(row["city"], row["amount_sum"])


if __name__ == "__main__":
    asyncio.run(main())
