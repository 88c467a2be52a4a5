"""Loads the Online Retail CSV into the legacy tables: customers, stock codes, invoices and every line of them."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from backend.legacy_shop.bulk import bulk_load
from backend.legacy_shop.local_time import TEXT_FORMAT, to_utc
from backend.legacy_shop.report import LoadReport
from backend.legacy_shop.retail_categories import BOOKKEEPING_CODES, category_path, numbered_paths
from backend.legacy_shop.retail_dirt import Dirt
from backend.legacy_shop.retail_shop import NO_COUNTRY, Customer, Product, RetailShop

DESCRIPTION_LENGTH = 200
COUNTRY_LENGTH = 100
STOCK_MAX = 500

_PLAIN_ID = re.compile(r"[A-Za-z0-9]+")


async def load_retail(dsn: str, path: str | os.PathLike[str], *, seed: int = 1) -> LoadReport:
    """Load the file at `path` (CSV, or CSV in gzip) into empty legacy tables, in one transaction.

    Every line becomes one row of cart_lines or is counted as rejected. `seed` chooses the stock on hand, which the file
    does not tell. Raises `LoadError`, and leaves the database as it was, when the file or the tables will not do.
    """
    started = perf_counter()
    shop = await asyncio.to_thread(RetailShop.read, Path(path))
    descriptions = {code: _description(product) for code, product in shop.products.items()}
    paths = {code: category_path(code, description=description) for code, description in descriptions.items()}
    numbers = numbered_paths(paths.values())
    _count_summary(shop, descriptions=descriptions)
    async with bulk_load(dsn) as load:
        await load.copy("users", records=_users(shop))
        await load.copy("cat", records=((number, path) for path, number in numbers.items()))
        categories = {code: numbers[path] for code, path in paths.items()}
        await load.copy(
            "prod", records=_products(shop, descriptions=descriptions, categories=categories, seed=seed)
        )
        await load.copy("carts", records=_carts(shop))
        await load.copy("cart_lines", records=_lines(shop))
    return LoadReport(
        source=str(path),
        seed=seed,
        rows=load.rows,
        dirt={kind.value: count for kind, count in shop.dirt.items()},
        rejected={reason.value: count for reason, count in shop.rejected.items()},
        lines_read=shop.lines_read,
        lines_loaded=shop.lines_loaded,
        duration_seconds=perf_counter() - started,
    )


def _description(product: Product) -> str | None:
    """The most common one. Where several are, one from a line with a price: notes of the stockroom have none."""
    if not product.descriptions:
        return None
    text, _ = min(
        product.descriptions.items(),
        key=lambda item: (-item[1], -product.priced_descriptions[item[0]], item[0]),
    )
    return text[:DESCRIPTION_LENGTH]


def _country(customer: Customer) -> str | None:
    name, _ = min(customer.countries.items(), key=lambda item: (item[0] in NO_COUNTRY, -item[1], item[0]))
    return None if name in NO_COUNTRY else name[:COUNTRY_LENGTH]


def _users(shop: RetailShop) -> Iterator[tuple[Any, ...]]:
    for number, (usr_id, customer) in enumerate(shop.customers.items(), start=1):
        name = usr_id if _PLAIN_ID.fullmatch(usr_id) else f"no-{number}"
        email = f"customer.{name}@example.com"
        country = _country(customer)
        yield (
            *(usr_id, email, None, None, None, None, None, None, country),
            *("U", 1, 0, 0, customer.since, None),
        )


def _products(
    shop: RetailShop, *, descriptions: dict[str, str | None], categories: dict[str, int], seed: int
) -> Iterator[tuple[Any, ...]]:
    """What was never sold at a price, and what is no ware, comes in as discontinued: it cannot be put into a cart."""
    rng = random.Random(seed)
    for code, product in shop.products.items():
        discontinued = not product.prices or code.upper() in BOOKKEEPING_CODES
        yield (
            product.number,
            code,
            descriptions[code],
            product.price_cents,
            categories[code],
            rng.randint(0, STOCK_MAX),
            int(discontinued),
            _utc(product.since),
            _utc(product.priced_at) if product.prices else None,
        )


def _carts(shop: RetailShop) -> Iterator[tuple[Any, ...]]:
    for invoice, cart in shop.carts.items():
        yield cart.number, cart.customer, cart.state, invoice, cart.first, _utc(cart.last)


def _lines(shop: RetailShop) -> Iterator[tuple[Any, ...]]:
    columns = (shop.line_cart, shop.line_product, shop.line_quantity, shop.line_cents, shop.line_moment)
    for number, (cart, product, quantity, cents, moment) in enumerate(zip(*columns, strict=True), start=1):
        yield number, cart, product, quantity, cents, shop.moments[moment]


def _utc(text: str) -> datetime:
    return to_utc(datetime.strptime(text, TEXT_FORMAT))  # noqa: DTZ007 - it is local


def _count_summary(shop: RetailShop, *, descriptions: dict[str, str | None]) -> None:
    """Count what only the whole file can tell."""
    dirt = shop.dirt
    for invoice, cart in shop.carts.items():
        dirt[Dirt.INVOICES_CANCELLED] += invoice[0].upper() == "C"
        dirt[Dirt.INVOICES_SEVERAL_TIMES] += cart.first != cart.last
    for customer in shop.customers.values():
        dirt[Dirt.CUSTOMERS_SEVERAL_COUNTRIES] += len(customer.countries) > 1
        dirt[Dirt.CUSTOMERS_WITHOUT_COUNTRY] += _country(customer) is None
    shared = Counter(text for text in descriptions.values() if text is not None)
    folded = Counter(code.upper() for code in shop.products)
    for code, product in shop.products.items():
        _count_product(shop, product=product, chosen=descriptions[code])
        dirt[Dirt.CODES_SHARED_DESCRIPTION] += shared[descriptions[code] or ""] > 1
        dirt[Dirt.CODES_CASE_TWINS] += folded[code.upper()] > 1
        dirt[Dirt.CODES_BOOKKEEPING] += code.upper() in BOOKKEEPING_CODES


def _count_product(shop: RetailShop, *, product: Product, chosen: str | None) -> None:
    dirt = shop.dirt
    texts = product.descriptions
    dirt[Dirt.CODES_SEVERAL_DESCRIPTIONS] += len(texts) > 1
    dirt[Dirt.CODES_WITHOUT_DESCRIPTION] += chosen is None
    dirt[Dirt.CODES_DESCRIBED_BY_NOTE] += chosen is not None and not product.priced_descriptions
    dirt[Dirt.CODES_TEXT_CUT] += chosen is not None and chosen not in texts
    dirt[Dirt.CODES_SEVERAL_PRICES] += len(product.prices) > 1
    dirt[Dirt.CODES_NEVER_PRICED] += not product.prices
    dirt[Dirt.LINES_OTHER_DESCRIPTION] += texts.total() - texts[chosen or ""]
