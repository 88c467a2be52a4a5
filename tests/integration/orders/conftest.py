"""The databases that an order crosses, fresh for every test, and the services over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol

import pytest

from backend.legacy_shop.schema import create_schema
from backend.messages.orders import SagaStyle
from backend.shared import Phase
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase, MakeTemplate
from tests.support.order_world import SERVICES, OrderUrls, OrderWorld, migrate, open_world


class MakeWorld(Protocol):
    """Opens the services in a phase."""

    async def __call__(self, style: SagaStyle, *, phase: Phase = Phase.DUALWRITE) -> OrderWorld: ...


@pytest.fixture(scope="session")
def order_templates(
    make_template: MakeTemplate, legacy_cluster: Cluster, services_cluster: Cluster
) -> dict[str, str]:
    own = {
        service: make_template(services_cluster, f"orders_{service}", partial(migrate, service))
        for service in SERVICES
    }
    return own | {"legacy": make_template(legacy_cluster, "orders_legacy", create_schema)}


@pytest.fixture
async def order_urls(
    make_database: MakeDatabase,
    order_templates: dict[str, str],
    legacy_cluster: Cluster,
    services_cluster: Cluster,
) -> OrderUrls:
    return OrderUrls(
        legacy=await make_database(legacy_cluster, template=order_templates["legacy"]),
        order=await make_database(services_cluster, template=order_templates["order"]),
        product=await make_database(services_cluster, template=order_templates["product"]),
        payment=await make_database(services_cluster, template=order_templates["payment"]),
        cart=await make_database(services_cluster, template=order_templates["cart"]),
    )


@pytest.fixture
async def make_world(order_urls: OrderUrls) -> AsyncIterator[MakeWorld]:
    async with AsyncExitStack() as stack:

        async def make(style: SagaStyle, *, phase: Phase = Phase.DUALWRITE) -> OrderWorld:
            return await open_world(order_urls, stack, style=style, phase=phase)

        yield make
