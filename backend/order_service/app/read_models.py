"""What the service keeps of others' things, as it has heard of them."""

from __future__ import annotations

from backend.messages.products import ProductChanged
from backend.shared.events.read_models import ReadModel

from .legacy import PRODUCT_VIEW
from .models import product_view

PRODUCTS = ReadModel(
    name="products",
    service="order",
    owner="product",
    kind=ProductChanged,
    table=product_view,
    entity=PRODUCT_VIEW.name,
)
READ_MODELS = (PRODUCTS,)
