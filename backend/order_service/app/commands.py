"""`tandem saga`: how orders make their way, which of them are stuck, and what to do about those."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.shared import DualWriteSettings, NotFoundError, UnitOfWork, ValidationError
from backend.shared.cli.foreign_text import foreign
from backend.shared.events.delivered_by import delivered_by
from backend.shared.events.outbox import Outbox
from backend.shared.events.saga import STUCK_SECONDS, SagaState
from backend.shared.identity import system_user

from .conductors import conductors
from .core.dual_write_manager import OrderDualWriteManager
from .core.settings import SagaTimes
from .entities import Order, OrderSaga
from .message_api import TELLS
from .models import ROOM
from .repositories import OrderRepository, SagaRepository
from .services.order_desk import OrderDesk

saga = typer.Typer(no_args_is_help=True, add_completion=False, help="How orders make their way.")
OrderId = Annotated[int, typer.Argument(help="The id of an order.", min=1, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line.")]
OPEN = (SagaState.RUNNING, SagaState.COMPENSATING, SagaState.NEEDS_REVIEW)


@saga.command("list")
def list_sagas(
    *,
    state: Annotated[
        list[SagaState] | None, typer.Option(help="Only these; default: all that are not over.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(help="Only those that began so many seconds ago, or earlier.", min=0)
    ] = None,
    stuck: Annotated[
        bool,
        typer.Option(
            "--stuck", help=f"Only those that are not over after {STUCK_SECONDS:g} s, or --older-than."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List sagas with their age, the oldest first. Exit 1 if one of them needs to be looked at, or is stuck and that was asked."""
    if stuck and state:
        raise ValidationError("--stuck is about all that are not over: leave --state out")
    seconds = older_than if older_than is not None else STUCK_SECONDS if stuck else 0.0
    found = asyncio.run(_list(tuple(state or OPEN), seconds, limit))
    if as_json:
        for item in found:
            typer.echo(json.dumps(_shown(item)))
    elif found:
        table = Table()
        for name in ("order", "state", "style", "age", "waits since", "who"):
            table.add_column(name, no_wrap=True)
        table.add_column("reason")
        now = datetime.now(UTC)
        for item in found:
            table.add_row(
                str(item.order_id),
                item.saga.state.value,
                item.style.value,
                _age(now, item.started_at),
                _age(now, item.updated_at),
                foreign(item.saga.participant or ""),
                foreign(item.saga.reason or ""),
            )
        Console().print(table)
    else:
        typer.echo("no sagas")
    needed = stuck or any(item.saga.state is SagaState.NEEDS_REVIEW for item in found)
    raise typer.Exit(1 if found and needed else 0)


@saga.command()
def show(order_id: OrderId, *, as_json: AsJson = False) -> None:
    """One saga, with everything that was heard of its order."""
    order, found = asyncio.run(_show(order_id))
    if as_json:
        typer.echo(
            json.dumps({**_shown(found), "order_status": order.status.value, "total": str(order.total)})
        )
        return
    typer.echo(f"order {order.id} of {order.user_id}: {order.status.value}, {order.total}")
    typer.echo(f"saga {found.saga.state.value} ({found.style.value})")
    if found.saga.reason and found.saga.state is not SagaState.COMPLETED:
        typer.echo(f"taken back because of {found.saga.participant}: {found.saga.reason}")
    for entry in found.history:
        typer.echo(f"  {entry['at']}  {entry['what']} → {entry['state']}")


@saga.command()
def retry(order_id: OrderId) -> None:
    """Try again to undo what could not be undone. Exit 2 for a saga that does not need to be looked at."""
    found = asyncio.run(_act("retry_saga", lambda desk, work: desk.retry(work, order_id, by=system_user())))
    typer.echo(f"order {order_id}: {found.saga.state.value}")


@saga.command()
def settle(
    order_id: OrderId,
    *,
    how: Annotated[str, typer.Option("--as", help="How it ends: compensated, or completed.")],
    note: Annotated[str, typer.Option(help="What was done by hand, for whoever looks later.")],
) -> None:
    """Say how a saga ends that could not be undone: the rest is undone then, or the order stands.

    Exit 2 for one that does not need to be looked at, and for one that cannot end so.
    """
    states = {state.value: state for state in (SagaState.COMPENSATED, SagaState.COMPLETED)}
    if how not in states:
        raise ValidationError(f"--as is one of {', '.join(states)}")
    if not note.strip():
        raise ValidationError("--note says what was done by hand: it is kept with the saga")
    found = asyncio.run(
        _act(
            "settle_saga",
            lambda desk, work: desk.settle(
                work, order_id, state=states[how], by=system_user(), note=note.strip()
            ),
        )
    )
    typer.echo(f"order {order_id}: {found.saga.state.value}")


async def _list(states: tuple[SagaState, ...], seconds: float, limit: int) -> list[OrderSaga]:
    began_before = datetime.now(UTC) - timedelta(seconds=seconds)

    async def unit(work: UnitOfWork) -> list[OrderSaga]:
        return await SagaRepository(work).page(states=states, began_before=began_before, limit=limit)

    async with _manager(counted=False) as manager:
        return await manager.read(unit, operation="list_sagas")


async def _show(order_id: int) -> tuple[Order, OrderSaga]:
    async with _manager(counted=False) as manager:

        async def unit(work: UnitOfWork) -> tuple[Order | None, OrderSaga | None]:
            return await OrderRepository(work).get(order_id), await SagaRepository(work).get(order_id)

        order, found = await manager.read(unit, operation="show_saga")
    if order is None or found is None:
        raise NotFoundError(f"there is no saga of order {order_id}")
    return order, found


async def _act(operation: str, act: Callable[[OrderDesk, UnitOfWork], Any]) -> OrderSaga:
    times = SagaTimes.from_env()
    desk = OrderDesk(
        Outbox(ROOM, tells=TELLS, delivered_by=delivered_by("order")),
        conductors(step_seconds=times.step_seconds, saga_seconds=times.saga_seconds),
        style=times.saga_style,
    )
    async with _manager(counted=True) as manager:

        async def unit(work: UnitOfWork) -> OrderSaga:
            found: OrderSaga = await act(desk, work)
            return found

        return await manager.run_unit(operation, unit)


@asynccontextmanager
async def _manager(*, counted: bool) -> AsyncIterator[OrderDualWriteManager]:
    """Not `counted` for what only looks: no change of the phase need wait for it."""
    manager = OrderDualWriteManager(settings=DualWriteSettings.from_env("ORDER"))
    manager.counted = counted
    try:
        yield manager
    finally:
        await manager.close()


def _shown(item: OrderSaga) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "order_id": item.order_id,
        "state": item.saga.state.value,
        "style": item.style.value,
        "age_seconds": round((now - item.started_at).total_seconds(), 1),
        "waits_seconds": round((now - item.updated_at).total_seconds(), 1),
        "participant": item.saga.participant,
        "reason": item.saga.reason,
        "history": list(item.history),
    }


def _age(now: datetime, since: datetime) -> str:
    seconds = int((now - since).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
