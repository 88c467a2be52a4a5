"""Products and their stock. Anyone may read; writing is for admins and other services."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi import Path as PathParameter

from backend.shared.api.fields import DatabaseId
from backend.shared.api.pagination import DepPage, Page
from backend.shared.api.security import require_role
from backend.shared.api.tokens import Role

from ..entities import ProductFilter, ProductSort
from ..fields import IdList, QueryFlag, QueryPrice, SearchText, parse_ids
from ..repositories import sort_key, sort_types
from ..schemas import ProductBatch, ProductCreate, ProductOut, ProductPatch, StockAdjust, StockOut, StockSet
from .dependencies import DepProducts

router = APIRouter(prefix="/products", tags=["products"])

_WRITERS = [Depends(require_role(Role.ADMIN, Role.SERVICE))]
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}}
}
ProductId = Annotated[DatabaseId, PathParameter(description="The id of a product.")]


@router.post("", summary="Put a product on sale", status_code=201, dependencies=_WRITERS, responses=_CREATED)
async def create_product(products: DepProducts, body: ProductCreate, response: Response) -> ProductOut:
    """409: the SKU is taken, or the category does not exist."""
    product = await products.create(body.to_entity())
    response.headers["Location"] = f"{router.prefix}/{product.id}"
    return ProductOut.of(product)


@router.get("", summary="Search products")
async def search_products(
    *,
    products: DepProducts,
    page: DepPage,
    q: Annotated[
        SearchText, Query(description="Words that the name or the SKU contains; letter case does not count.")
    ] = "",
    category_id: Annotated[
        DatabaseId | None, Query(description="In this category or in one below it.")
    ] = None,
    price_min: QueryPrice | None = None,
    price_max: QueryPrice | None = None,
    active: Annotated[
        QueryFlag | None, Query(description="Only those on sale, or only those that are not.")
    ] = None,
    in_stock: Annotated[
        QueryFlag | None, Query(description="Only those there are any of, or none of.")
    ] = None,
    sort: Annotated[
        ProductSort, Query(description="Ties are broken by id; - is descending.")
    ] = ProductSort.ID,
) -> Page[ProductOut]:
    """All filters that are given must fit. A cursor goes with the order that it was given out for."""
    wanted = ProductFilter(
        words=tuple(q.split()),
        category_id=category_id,
        price_min=price_min,
        price_max=price_max,
        is_active=active,
        in_stock=in_stock,
    )
    listing = f"products:{sort.value}"
    after = page.after(listing, types=sort_types(sort))
    found = await products.search(wanted, sort=sort, after=after, limit=page.limit + 1)
    paged = page.page(found, listing=listing, key=lambda product: sort_key(product, sort))
    return Page(items=[ProductOut.of(product) for product in paged.items], next_cursor=paged.next_cursor)


@router.get("/by-ids", summary="Products by id")
async def get_products(
    products: DepProducts, ids: Annotated[IdList, Query(description="Up to 200, separated by commas.")]
) -> ProductBatch:
    """Deactivated ones too: whoever holds an id may still have to show what it was."""
    wanted, impossible = parse_ids(ids)
    found = await products.get_many(wanted)
    return ProductBatch(
        items=[ProductOut.of(product) for product in found.products], missing=[*found.missing, *impossible]
    )


@router.get("/{product_id:int}", summary="One product")
async def get_product(products: DepProducts, product_id: ProductId) -> ProductOut:
    """404 also for a deactivated one."""
    return ProductOut.of(await products.get(product_id))


@router.patch("/{product_id:int}", summary="Change a product", dependencies=_WRITERS)
async def update_product(products: DepProducts, product_id: ProductId, body: ProductPatch) -> ProductOut:
    """404 also for a deactivated one, which is to be activated first; 409: the SKU is taken, or the category does not exist."""
    return ProductOut.of(await products.update(product_id, body.to_entity()))


@router.delete("/{product_id:int}", summary="Take a product off sale", status_code=204, dependencies=_WRITERS)
async def deactivate_product(products: DepProducts, product_id: ProductId) -> None:
    """Its data stays, and it can be activated again."""
    await products.deactivate(product_id)


@router.post("/{product_id:int}/activate", summary="Put a product on sale again", dependencies=_WRITERS)
async def activate_product(products: DepProducts, product_id: ProductId) -> ProductOut:
    """Nothing happens to one that is on sale."""
    return ProductOut.of(await products.activate(product_id))


@router.get("/{product_id:int}/stock", summary="How many there are")
async def get_stock(products: DepProducts, product_id: ProductId) -> StockOut:
    """404 also for a deactivated one."""
    product = await products.get(product_id)
    return StockOut(product_id=product.id, quantity=product.quantity)


@router.put("/{product_id:int}/stock", summary="Say how many there are", dependencies=_WRITERS)
async def set_stock(products: DepProducts, product_id: ProductId, body: StockSet) -> StockOut:
    """For counting the shelves; a sale or a delivery adjusts."""
    return StockOut.of(await products.set_stock(product_id, body.quantity))


@router.post(
    "/{product_id:int}/stock/adjust", summary="Add to the stock or take from it", dependencies=_WRITERS
)
async def adjust_stock(products: DepProducts, product_id: ProductId, body: StockAdjust) -> StockOut:
    """Several at once add up. 409: there are not enough, and nothing is taken."""
    return StockOut.of(await products.adjust_stock(product_id, body.delta))
