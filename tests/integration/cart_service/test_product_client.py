"""How products are looked up: what the product service may answer, and what happens when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

import httpx
import pytest
from alembic import command
from alembic.config import Config
from prometheus_client import CollectorRegistry

import backend.product_service
from backend.cart_service.app.catalog import CatalogProduct, CatalogUnavailableError
from backend.cart_service.app.product_client import HttpProductCatalog
from backend.legacy_shop.schema import create_schema
from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.entities import NewProduct
from backend.product_service.app.main import make_app
from backend.shared import DualWriteSettings, Phase
from backend.shared.call_breaker import CallBreaker, CallRefusedError
from backend.shared.observability.context import request_context
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase

GOOD = {"id": 5, "price": "9.99", "is_active": True, "sku": "A"}
Answer = Callable[[httpx.Request], httpx.Response]


def catalog_over(answer: Answer, *, breaker: CallBreaker | None = None) -> HttpProductCatalog:
    return HttpProductCatalog(
        "http://product",
        timeout_seconds=0.2,
        breaker=breaker,
        transport=httpx.MockTransport(answer),
    )


async def test_the_product_is_found_among_the_items() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"items": [GOOD | {"id": 4}, GOOD], "missing": []})

    catalog = catalog_over(answer)
    with request_context(request_id="abc"):
        assert await catalog.find(5) == CatalogProduct(id=5, price=Decimal("9.99"), is_active=True)
    assert (asked[0].url.path, asked[0].url.params["ids"]) == ("/products/by-ids", "5")
    assert asked[0].headers["X-Request-ID"] == "abc"
    assert await catalog.find(6) is None
    await catalog.aclose()


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500),
        httpx.Response(404),
        httpx.Response(302, headers={"Location": "http://elsewhere"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"items": [GOOD | {"price": "NaN"}]}),
        httpx.Response(200, json={"items": [GOOD | {"price": "1e40"}]}),
        httpx.Response(200, json={"items": [GOOD | {"is_active": None}]}),
        httpx.Response(200, json=[]),
    ],
    ids=lambda response: f"{response.status_code} {response.text[:40]}",
)
async def test_an_answer_that_is_none_means_that_nobody_can_tell(response: httpx.Response) -> None:
    catalog = catalog_over(lambda _: response)
    with pytest.raises(CatalogUnavailableError):
        await catalog.find(5)
    await catalog.aclose()


async def test_a_connection_that_was_closed_meanwhile_is_not_the_callers_trouble() -> None:
    calls = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise httpx.RemoteProtocolError("server disconnected")
        return httpx.Response(200, json={"items": [GOOD]})

    catalog = catalog_over(answer)
    assert await catalog.find(5) is not None
    await catalog.aclose()


async def test_a_service_that_hangs_is_not_waited_for() -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:  # a byte now and then, so that no single wait is long
                await asyncio.sleep(0.05)
                writer.write(b"X: y\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    catalog = HttpProductCatalog(f"http://127.0.0.1:{port}", timeout_seconds=0.2)
    began = asyncio.get_running_loop().time()
    with pytest.raises(CatalogUnavailableError):
        await catalog.find(5)
    assert asyncio.get_running_loop().time() - began < 1.5
    await catalog.aclose()
    server.close()


async def test_after_some_failures_nobody_is_asked_until_one_call_succeeds() -> None:
    now, calls, up = 0.0, 0, False

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if not up:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={"items": [GOOD]})

    breaker = CallBreaker("product", threshold=3, open_seconds=1.0, clock=lambda: now)
    catalog = catalog_over(answer, breaker=breaker)
    for _ in range(10):
        with pytest.raises(CatalogUnavailableError):
            await catalog.find(5)
    assert (calls, breaker.is_open) == (3, True)
    with pytest.raises(CatalogUnavailableError):
        await catalog.probe()
    now = 1.0
    for _ in range(2):
        with pytest.raises(CatalogUnavailableError):
            await catalog.find(5)
    assert calls == 4
    now, up = 2.0, True
    assert await catalog.find(5) is not None
    assert not breaker.is_open
    await catalog.probe()
    await catalog.aclose()


async def test_while_one_tries_again_the_others_are_refused() -> None:
    now = 0.0
    breaker = CallBreaker("product", threshold=1, clock=lambda: now)
    with pytest.raises(OSError, match="down"), breaker.call(OSError):
        raise OSError("down")
    now = 5.0
    with breaker.call(OSError), pytest.raises(CallRefusedError), breaker.call(OSError):
        pass
    assert not breaker.is_open
    with pytest.raises(asyncio.CancelledError), breaker.call(OSError):
        raise asyncio.CancelledError
    assert not breaker.is_open


async def test_it_understands_the_product_service_itself(
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    make_database: MakeDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    legacy_url, new_url = await make_database(legacy_cluster), await make_database(services_cluster)
    await create_schema(legacy_url)
    monkeypatch.setenv("PRODUCT_DATABASE_URL", new_url)
    config = Config(f"{backend.product_service.__path__[0]}/alembic.ini")
    await asyncio.to_thread(command.upgrade, config, "head")
    manager = ProductDualWriteManager(
        new_url,
        legacy_url,
        DualWriteSettings(service="product", phase=Phase.DUALWRITE),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    made = [NewProduct(sku=f"S{n}", name="x", price=Decimal("9.90")) for n in range(2)]
    on_sale, gone = [(await manager.create_product(new)).unwrap().id for new in made]
    await manager.deactivate_product(gone)
    app = make_app(manager=manager, metrics=Metrics(CollectorRegistry()), verifier=None, run_relay=False)
    catalog = HttpProductCatalog("http://product", transport=httpx.ASGITransport(app=app))
    assert await catalog.find(on_sale) == CatalogProduct(id=on_sale, price=Decimal("9.90"), is_active=True)
    assert await catalog.find(gone) == CatalogProduct(id=gone, price=Decimal("9.90"), is_active=False)
    assert await catalog.find(2**31 - 1) is None
    await catalog.aclose()
    await manager.close()
