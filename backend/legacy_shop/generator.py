"""Makes a shop out of nothing: seeded, of any size, and as untidy as one that many programs wrote to."""

from __future__ import annotations

from time import perf_counter

from backend.legacy_shop.bulk import bulk_load
from backend.legacy_shop.generated_carts import GONE_PRODUCTS, CartMaker
from backend.legacy_shop.generated_dirt import DirtCounts, GeneratedDirt
from backend.legacy_shop.generated_tables import TableMaker
from backend.legacy_shop.report import LoadReport
from backend.legacy_shop.size import ShopSize

CARTS_PER_COPY = 1_000


async def load_generated(dsn: str, *, seed: int = 1, size: ShopSize | int | None = None) -> LoadReport:
    """Fill empty legacy tables in one transaction; the same seed and size give the same rows.

    `size` as a number asks for so many cart lines and the rest in proportion. Memory does not grow with the size, but for
    the category paths. Raises `LoadError`, and leaves the database as it was, when the tables will not do.
    """
    started = perf_counter()
    chosen = ShopSize.of_lines(size) if isinstance(size, int) else size or ShopSize()
    counts = DirtCounts()
    tables = TableMaker(seed=seed, size=chosen, counts=counts)
    carts = CartMaker(seed=seed, size=chosen, counts=counts)
    async with bulk_load(dsn) as load:
        load.reserve("prod", upto=chosen.products + GONE_PRODUCTS)
        await load.copy("users", records=tables.users())
        await load.copy("cat", records=tables.categories())
        await load.copy("prod", records=tables.products())
        # By turns, so that neither carts nor lines need be held as a whole.
        while batch := carts.take(CARTS_PER_COPY):
            await load.copy("carts", records=(cart.record for cart in batch))
            await load.copy("cart_lines", records=(line for cart in batch for line in cart.lines))
        await load.copy("wish", records=tables.wishes())
    return LoadReport(
        source="generated",
        seed=seed,
        rows=load.rows,
        dirt={kind.value: counts[kind] for kind in GeneratedDirt},
        lines_read=chosen.lines,
        lines_loaded=load.rows["cart_lines"],
        duration_seconds=perf_counter() - started,
    )
