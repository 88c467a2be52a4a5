"""What `make up` starts beside the shop: the message broker and payments outlive who started them, and end with the rest."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from backend.demo.orders.stack import OrderStack, order_ports
from backend.demo.record import StackRecord
from backend.shared.testing.watchdog import kill_tree

_PROGRAM = """
    import asyncio, pathlib
    from backend.demo.orders.stack import OrderStack
    from backend.demo.steps import ShopSource

    async def bring_up():
        stack = OrderStack(pathlib.Path({folder!r}), data=pathlib.Path({data!r}), members=())
        await stack.setup(ShopSource(size=50))
        stack.detach()

    asyncio.run(bring_up())
"""


@pytest.fixture
def stack(tmp_path: Path, worker_directory: Path) -> Iterator[OrderStack]:
    """The stack as another process sees it; without the services of the shop, of which other tests tell."""
    stack = OrderStack(tmp_path, data=worker_directory / "orders", members=())
    yield stack
    record = StackRecord.load(tmp_path / "stack.json")
    if record is not None:
        record.stop()
    stack.remove()


async def test_broker_and_payments_are_found_and_stopped_by_another_process(stack: OrderStack) -> None:
    program = textwrap.dedent(_PROGRAM).format(folder=str(stack.folder), data=str(stack.data))
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=True)

    record = stack.recorded()
    assert record is not None
    assert set(record.processes) == {"payment", "broker"}
    async with httpx.AsyncClient(timeout=10) as client:
        assert (await client.get(f"{record.urls['payment']}/readyz")).status_code == 200
    assert stack.broker.answers()

    kill_tree(psutil.Process(record.processes["broker"].pid))  # and waits for its end
    assert stack.recorded() is None, "a stack without its broker does not count as up"
    assert await stack.stop_recorded()
    assert not record.is_running
    assert record.processes["payment"].find() is None


def test_each_service_has_the_port_that_it_is_known_under() -> None:
    assert order_ports() == {"auth": 8001, "product": 8002, "cart": 8003, "order": 8004, "payment": 8006}
