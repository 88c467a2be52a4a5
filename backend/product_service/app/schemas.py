"""What goes over the wire, apart from what the service thinks in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from .category_tree import Category, CategoryTree
from .entities import CategoryChanges, NewProduct, Product, ProductChanges, Stock
from .fields import BodyId, CategoryName, Delta, Price, ProductName, Quantity, Sku, StoredPrice


def _partial(schema: dict[str, Any]) -> None:
    """The schema of a change: what is left out stays, so no default, and nothing at all is no change."""
    schema["minProperties"] = 1
    for field in schema["properties"].values():
        field.pop("default", None)


class _Body(BaseModel):
    """A body: nothing is converted ('5' is no 5), and what is not known is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Patch(_Body):
    """A change, at least of one thing."""

    model_config = ConfigDict(json_schema_extra=_partial)

    @model_validator(mode="after")
    def _changes_something(self) -> _Patch:
        if not self.model_fields_set:
            raise ValueError("name at least one thing to change")
        return self

    def given(self) -> dict[str, Any]:
        """What the caller named."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _refuse_null(data: Any, *, names: frozenset[str]) -> Any:
    if isinstance(data, dict):
        for name in names & data.keys():
            if data[name] is None:
                raise ValueError(f"{name} must not be null")
    return data


class ProductCreate(_Body):
    """A product to put on sale."""

    sku: Sku
    name: ProductName | None = Field(default=None, description="What it is called.")
    price: Price
    category_id: BodyId | None = None
    quantity: Quantity = Field(default=0, description="How many there are to begin with.")

    def to_entity(self) -> NewProduct:
        return NewProduct(**{name: getattr(self, name) for name in type(self).model_fields})


class ProductPatch(_Patch):
    """What to change of a product; `null` takes the name or the category away."""

    sku: Sku | SkipJsonSchema[None] = None
    name: ProductName | None = None
    price: Price | SkipJsonSchema[None] = None
    category_id: BodyId | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return _refuse_null(data, names=frozenset({"sku", "price"}))

    def to_entity(self) -> ProductChanges:
        return ProductChanges(**self.given())


class ProductOut(BaseModel):
    """A product."""

    id: int
    sku: str
    name: str | None = Field(description="As it always was: it may be blank, or have blanks at its ends.")
    price: StoredPrice
    category_id: int | None
    is_active: bool
    quantity: int = Field(description="How many there are.")
    created_at: datetime
    updated_at: datetime | None = Field(
        description="When the product itself was changed; stock does not count."
    )

    @classmethod
    def of(cls, product: Product) -> ProductOut:
        return cls(**vars(product))


class ProductBatch(BaseModel):
    """Products by id, deactivated ones too."""

    items: list[ProductOut]
    missing: list[int] = Field(description="Ids that lead nowhere.")


class StockSet(_Body):
    """How many there are."""

    quantity: Quantity


class StockAdjust(_Body):
    """How many more there are, or, below zero, how many fewer."""

    delta: Delta


class StockOut(BaseModel):
    """How many of a product there are."""

    product_id: int
    quantity: int

    @classmethod
    def of(cls, stock: Stock) -> StockOut:
        return cls(product_id=stock.product_id, quantity=stock.quantity)


class CategoryCreate(_Body):
    """A category to make."""

    name: CategoryName
    parent_id: BodyId | None = Field(default=None, description="Without one, it is a root.")


class CategoryPatch(_Patch):
    """A new name, a new parent (`null`: make it a root), or both. All below it comes along."""

    name: CategoryName | SkipJsonSchema[None] = None
    parent_id: BodyId | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return _refuse_null(data, names=frozenset({"name"}))

    def to_entity(self) -> CategoryChanges:
        return CategoryChanges(**self.given())


class CategoryOut(BaseModel):
    """A category and its place."""

    id: int
    parent_id: int | None
    name: str
    path: str = Field(description="The names from the root down to it, joined by slashes.")

    @classmethod
    def of(cls, category: Category) -> CategoryOut:
        return cls(**vars(category))


class CategoryNode(CategoryOut):
    """A category with all below it, by name."""

    children: list[CategoryNode]


class CategoryForest(BaseModel):
    """All categories."""

    items: list[CategoryNode]

    @classmethod
    def of(cls, tree: CategoryTree) -> CategoryForest:
        return cls(items=_nodes(tree, None))


def _nodes(tree: CategoryTree, parent_id: int | None) -> list[CategoryNode]:
    return [
        CategoryNode(**vars(category), children=_nodes(tree, category.id))
        for category in tree.children(parent_id)
    ]
