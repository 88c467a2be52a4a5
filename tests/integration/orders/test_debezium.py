"""`deploy/debezium` and `docs/howto/debezium.md` name what there is, and the tables that are read there are insert-only."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.models import ROOM
from backend.shared import Phase, Side
from backend.shared.domain.phases import Direction
from backend.shared.events.dead_letters import DeadLetters
from backend.shared.events.envelope import Envelope
from backend.shared.events.transport import NAME
from backend.shared.testing.programs import REPOSITORY
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_world import OrderUrls, OrderWorld

PAGE = (REPOSITORY / "docs/howto/debezium.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```sql (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = dict(_BLOCK.findall(PAGE))
TABLES = {
    "order": {"public.event"},
    "legacy": {"tandem_auth.event", "tandem_order.event", "tandem_product.event"},
}
"""What each connector reads: the tables of the services that tell."""
ROUTER = "transforms.outbox."
NEEDED = {
    f"{ROUTER}table.field.event.id": "uuid",
    f"{ROUTER}table.field.event.key": "text",
    f"{ROUTER}table.field.event.payload": "jsonb",
    f"{ROUTER}route.by.field": "text",
}
"""Settings that name a column, and the type that the router needs there."""


def config_of(name: str) -> dict[str, str]:
    found = json.loads((REPOSITORY / f"deploy/debezium/{name}.json").read_text(encoding="utf-8"))
    assert found["name"] == f"tandem-{name}"
    config: dict[str, str] = found["config"]
    return config


def url_of(urls: OrderUrls, name: str) -> str:
    return urls.order if name == "order" else urls.legacy


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def make_world(make_world: MakeWorld, order_urls: OrderUrls) -> MakeWorld:
    """The world of orders knows no auth service: here legacy has its twin too."""

    async def make(*args: Any, **named: Any) -> OrderWorld:
        world = await make_world(*args, **named)
        async with connected(order_urls.legacy) as connection:
            await connection.execute(
                "CREATE SCHEMA IF NOT EXISTS tandem_auth; "
                "CREATE TABLE IF NOT EXISTS tandem_auth.event (LIKE tandem_order.event INCLUDING ALL); "
                "CREATE TABLE IF NOT EXISTS tandem_auth.outbox ()"
            )
        return world

    return make


@pytest.mark.parametrize("name", list(TABLES))
async def test_the_connector_names_columns_that_are_there(
    make_world: MakeWorld, order_urls: OrderUrls, name: str
) -> None:
    await make_world(SagaStyle.CHOREOGRAPHED)
    config = config_of(name)
    async with connected(url_of(order_urls, name)) as connection:
        rows = await connection.fetch(
            "SELECT table_schema || '.' || table_name AS name, column_name, data_type, is_nullable "
            "FROM information_schema.columns WHERE table_name = 'event'"
        )
    columns = {
        (row["name"], row["column_name"]): row["data_type"] for row in rows if row["is_nullable"] == "NO"
    }
    tables = {table for table, _ in columns}
    assert {table for table in tables if re.fullmatch(config["table.include.list"], table)} >= TABLES[name]
    additional = config[f"{ROUTER}table.fields.additional.placement"]
    headers = {field.split(":")[0]: "text" for field in additional.split(",")}
    needed = {config[setting]: kind for setting, kind in NEEDED.items()} | headers
    for table in TABLES[name]:
        assert {column: columns[table, column] for column in needed} == needed
        assert re.fullmatch(config["predicates.event.pattern"], f"{config['topic.prefix']}.{table}")


async def test_topic_key_and_value_are_those_of_the_outbox(
    make_world: MakeWorld, order_urls: OrderUrls
) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    ids = await world.stocked(cup=10)
    await world.place((ids["cup"], 1))
    config = config_of("legacy")
    async with connected(order_urls.legacy) as connection:
        (row,) = await connection.fetch("SELECT *, payload::text AS value FROM tandem_order.event")
        (queued,) = await connection.fetch("SELECT payload FROM tandem_order.outbox")
    told = Envelope.model_validate_json(row["value"])
    assert told == Envelope.model_validate_json(queued["payload"])
    assert row[config[f"{ROUTER}route.by.field"]] == told.subject
    assert config[f"{ROUTER}route.topic.replacement"] == f"{NAME}.${{routedByValue}}"
    assert row[config[f"{ROUTER}table.field.event.key"]] == told.aggregate_id
    assert row[config[f"{ROUTER}table.field.event.id"]] == told.id


async def test_the_role_of_the_page_reads_the_record_and_nothing_else(
    make_world: MakeWorld, order_urls: OrderUrls
) -> None:
    await make_world(SagaStyle.CHOREOGRAPHED)
    for name, tables in TABLES.items():
        url = url_of(order_urls, name)
        async with connected(url) as connection:
            await connection.execute(BLOCKS[name])
            published = await connection.fetch(
                "SELECT schemaname || '.' || tablename AS name, pubinsert, pubupdate, pubdelete, pubtruncate "
                "FROM pg_publication_tables JOIN pg_publication USING (pubname) WHERE pubname = $1",
                config_of(name)["publication.name"],
            )
            assert await connection.fetch(BLOCKS["watch"]) == []
            assert await connection.fetch(BLOCKS["drop"]) == []
            for statement in (
                *BLOCKS["limit"].strip().splitlines(),
                "ALTER SYSTEM RESET max_slot_wal_keep_size",
            ):
                await connection.execute(statement)
        try:
            assert {tuple(row) for row in published} == {
                (table, True, False, False, False) for table in tables
            }
            parts = urlsplit(url)
            place = f"debezium:change%20me@{parts.hostname}:{parts.port}"
            async with connected(urlunsplit(parts._replace(netloc=place))) as reader:
                for table in tables:
                    assert await reader.fetch(f"SELECT id FROM {table}") == []
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await reader.execute(f"DELETE FROM {table}")
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await reader.fetch(f"SELECT 1 FROM {table.replace('event', 'outbox')}")
        finally:
            async with connected(url) as connection:
                await connection.execute("DROP OWNED BY debezium; DROP ROLE debezium")


@pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.RAMPDOWN])
async def test_events_are_only_ever_inserted(
    make_world: MakeWorld, order_urls: OrderUrls, phase: Phase
) -> None:
    """Recorded, carried to the other side, carried again, replayed: none of it changes or deletes a row."""
    world = await make_world(SagaStyle.ORCHESTRATED, phase=phase)
    for url, tables in ((order_urls.legacy, TABLES["legacy"]), (order_urls.order, TABLES["order"])):
        async with connected(url) as connection:
            for table in tables:
                await _forbid_changes(connection, table)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    await world.cancel(await world.place((ids["cup"], 1)))
    await world.post.bring_all()
    await _carry(world)
    await world.place((ids["cup"], 2))
    await world.post.consumers["order"].take(b"{}")
    await DeadLetters(ROOM, world.order.run_unit).replay_all()
    await _carry(world)
    counts = []
    for url, table in ((order_urls.legacy, "tandem_order.event"), (order_urls.order, "event")):
        async with connected(url) as connection:
            counts.append(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    assert counts[0] == counts[1] > 5
    async with connected(order_urls.order) as connection:
        with pytest.raises(asyncpg.RaiseError, match="insert-only"):
            await connection.execute("DELETE FROM event")


async def _carry(world: OrderWorld) -> None:
    side = world.order.phase.policy.authoritative
    direction = Direction.TO_NEW if side is Side.LEGACY else Direction.TO_LEGACY
    assert await world.order.runtime.relays[direction].drain(timeout_seconds=10)


async def _forbid_changes(connection: asyncpg.Connection[Any], table: str) -> None:
    await connection.execute(
        "CREATE OR REPLACE FUNCTION public.insert_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the record is insert-only'; END $$;"
        f"CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION public.insert_only();"
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER insert_only"
    )
