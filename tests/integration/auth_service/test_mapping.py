"""The mapping of a user: there and back, dirt included, judged by plain SQL on either side."""

from __future__ import annotations

import calendar
import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from backend.auth_service.app.entities import NewUser, Profile, UserRole
from backend.auth_service.app.legacy import USER, legacy_users, storable
from backend.shared import Phase, Side
from tests.integration.auth_service.conftest import MakeAuth
from tests.integration.auth_service.support import Auth, expect

LEGACY_COLUMNS = (
    *("usr_id", "login_email", "pwd_hash", "first_nm", "last_nm", "phone_no", "addr_line", "city", "country"),
    *("role_cd", "is_active", "newsletter", "reg_date", "last_upd"),
)
INSERT = (
    f"INSERT INTO users ({', '.join(LEGACY_COLUMNS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(LEGACY_COLUMNS) + 1))})"
)
SEVERAL = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def text(length: int) -> st.SearchStrategy[str | None]:
    """What PostgreSQL takes for text: anything but NUL and lone surrogates."""
    letters = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
    return (
        st.none()
        | st.sampled_from(["", " ", "\tAda", "Ada\u00a0", "NULL", "\\N", "'"])
        | st.text(letters, max_size=length)
    )


def moments() -> st.SearchStrategy[datetime]:
    seconds = st.integers(-631_152_000_000_000, 4_102_444_800_000_000)  # from 1950 to 2100, in microseconds
    return seconds.map(lambda value: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value))


def wall_clock(moment: datetime) -> str:
    return moment.astimezone(ZoneInfo("Europe/London")).strftime("%Y-%m-%d %H:%M:%S")


legacy_rows = st.fixed_dictionaries(
    {
        "pwd_hash": text(255),
        "first_nm": text(100),
        "last_nm": text(100),
        "phone_no": text(40),
        "addr_line": text(200),
        "city": text(100),
        "country": text(100),
        "role_cd": st.sampled_from("UA"),
        "is_active": st.integers(0, 1),
        "newsletter": st.integers(0, 1),
        "reg_date": moments().map(storable).map(wall_clock),
        "last_upd": st.none() | moments().map(storable).map(wall_clock),
    }
)
profiles = st.builds(
    Profile,
    first_name=text(100),
    last_name=text(100),
    phone=text(40),
    address_line=text(200),
    city=text(100),
    country=text(100),
    newsletter=st.booleans(),
)


async def projected(auth: Auth, side: Side, table: str) -> dict[str, dict[str, Any]]:
    """What the mapping makes of `side`, as rows of `table` on the other, by key."""
    projections = USER.to_legacy if side is Side.NEW else USER.to_new
    projection = next(item for item in projections if item.table.name == table)
    async with auth.manager.runtime.engines[side].connect() as connection:
        rows = (await connection.execute(projection.query)).mappings().all()
    return {row[projection.key[0]]: dict(row) for row in rows}


async def stored(auth: Auth, side: Side, table: str) -> dict[str, dict[str, Any]]:
    rows = await (auth.legacy if side is Side.LEGACY else auth.new)(f"SELECT * FROM {table}")
    key = "user_id" if table == "user_profiles" else "usr_id" if side is Side.LEGACY else "id"
    return {row[key]: row for row in rows}


async def assert_equal(auth: Auth) -> None:
    """Each side holds what the mapping makes of the other."""
    for table in ("users", "user_profiles"):
        assert await projected(auth, Side.LEGACY, table) == await stored(auth, Side.NEW, table)
    old = await stored(auth, Side.LEGACY, "users")
    for row in old.values():
        del row["credit_cents"]
    assert await projected(auth, Side.NEW, "users") == old


@SEVERAL
@given(rows=st.lists(legacy_rows, min_size=1, max_size=12))
@pytest.mark.parametrize("phase", [Phase.DUALWRITE])
async def test_what_legacy_holds_comes_back_letter_by_letter(auth: Auth, rows: list[dict[str, Any]]) -> None:
    connection = await asyncpg.connect(auth.databases.legacy_url)
    for row in rows:
        name = uuid.uuid4().hex
        full = row | {"usr_id": name, "login_email": f"{name}@Example.COM"}
        await connection.execute(INSERT, *(full[column] for column in LEGACY_COLUMNS))
    await connection.close()
    await auth.carry()
    assert len(await auth.new("SELECT 1 FROM users")) == len(await auth.legacy("SELECT 1 FROM users"))
    await assert_equal(auth)


@SEVERAL
@given(
    users=st.lists(
        st.tuples(profiles, st.sampled_from(UserRole), st.booleans(), text(255), moments()),
        min_size=1,
        max_size=8,
    )
)
async def test_what_the_service_makes_is_the_same_on_both_sides(
    auth: Auth, users: list[tuple[Profile, UserRole, bool, str | None, datetime]]
) -> None:
    for profile, role, active, password_hash, moment in users:
        auth.manager.clock = lambda moment=moment: moment  # type: ignore[misc]  # bound in the loop on purpose
        user = NewUser(
            email=f"{uuid.uuid4().hex}@example.com",
            password_hash=password_hash,
            role=role,
            is_active=active,
            profile=profile,
        )
        made = (await auth.manager.create_user(user)).unwrap()
        changed = (await auth.manager.update_user(made.id, {"city": profile.country})).unwrap()
        assert changed.profile.city == profile.country
        assert (changed.created_at, changed.role, changed.is_active) == (made.created_at, role, active)
    await auth.carry()
    await assert_equal(auth)


DATES = {
    "2024-07-01 12:00:00": datetime(2024, 7, 1, 11, tzinfo=UTC),
    "2024-01-01 12:00:00": datetime(2024, 1, 1, 12, tzinfo=UTC),
    "2024-10-27 01:30:00": datetime(2024, 10, 27, 1, 30, tzinfo=UTC),  # the hour that came twice
    "2024-03-31 01:30:00": datetime(2024, 3, 31, 1, 30, tzinfo=UTC),  # the hour that never was
    "2024-02-29 23:59:59": datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
    "2000-02-29 00:00:00": datetime(2000, 2, 29, tzinfo=UTC),
    "": None,
    " ": None,
    "0000-00-00 00:00:00": None,
    "0000-01-01 00:00:00": None,
    "2023-02-29 00:00:00": None,
    "1900-02-29 00:00:00": None,
    "2024-04-31 00:00:00": None,
    "2024-13-01 00:00:00": None,
    "2024-01-01 24:00:00": None,
    "2024-01-01 10:60:00": None,
    "2024-01-01 10:00:60": None,
    "2024-1-1 1:00:00": None,
    "2024-01-01": None,
    "2024-01-01T10:00:00": None,
    "01/12/2010 08:26:00": None,
    "yesterday": None,
    "infinity": None,
    "٢٠٢٤-01-01 10:00:00": None,
    "2024-01-01 10:00\n:0": None,
}


async def read_dates(auth: Auth, texts: list[str]) -> dict[str, datetime | None]:
    await run_many(
        auth,
        "INSERT INTO users (usr_id, login_email, reg_date, last_upd) VALUES ($1, $1, $2, $2)",
        [(f"d{number}", value) for number, value in enumerate(texts)],
    )
    query = USER.to_new[0].query.add_columns(legacy_users.c.reg_date)
    async with auth.manager.runtime.engines[Side.LEGACY].connect() as connection:
        rows = (await connection.execute(query)).mappings().all()
    assert all(row["created_at"] == row["updated_at"] for row in rows)
    return {row["reg_date"]: row["created_at"] for row in rows}


async def run_many(auth: Auth, statement: str, rows: list[tuple[Any, ...]]) -> None:
    connection = await asyncpg.connect(auth.databases.legacy_url)
    await connection.executemany(statement, rows)
    await connection.close()


@pytest.mark.parametrize("phase", [Phase.DUALWRITE])
async def test_a_text_is_a_time_or_nothing(auth: Auth) -> None:
    assert await read_dates(auth, list(DATES)) == DATES


@pytest.mark.parametrize("phase", [Phase.RAMPDOWN])
async def test_every_day_of_the_calendar_is_read_and_no_other(auth: Auth) -> None:
    years = (1, 4, 100, 400, 1900, 1999, 2000, 2023, 2024, 2100, 9999)
    days = {
        f"{year:04}-{month:02}-{day:02} 12:00:00": 1 <= month <= 12
        and 1 <= day <= calendar.monthrange(year, month)[1]
        for year, month, day in itertools.product(years, range(14), range(33))
    }
    # On the secondary side, so that nothing is journalled: only the reading counts here.
    read = await read_dates(auth, list(days))
    assert {value for value, moment in read.items() if moment} == {
        value for value, real in days.items() if real
    }


@pytest.mark.parametrize("phase", [Phase.DUALWRITE])
async def test_what_cannot_be_meant_is_kept_as_failed_and_blocks_nobody(
    make_auth: MakeAuth, phase: Phase
) -> None:
    auth = await make_auth(phase, retry_attempts=1)
    dirt = {
        "role": ("role_cd", "X"),
        "flag": ("is_active", 5),
        "letters": ("newsletter", -1),
        "date": ("reg_date", "gestern"),
    }
    for name, (column, value) in dirt.items():
        await auth.legacy(
            "INSERT INTO users (usr_id, login_email, reg_date) VALUES ($1, $1, '2024-01-01 00:00:00')", name
        )
        await auth.legacy(f"UPDATE users SET {column} = $2 WHERE usr_id = $1", name, value)
    headers = await auth.admin()
    await auth.carry()
    assert {row["id"] for row in await auth.new("SELECT id FROM users")}.isdisjoint(dirt)
    failures = expect(await auth.client.get("/dual-write/failures", headers=headers), 200)["items"]
    assert {failure["key"] for failure in failures} == {f'["{name}"]' for name in dirt}
    # The service goes on, and what it does not understand opens nothing.
    listed = expect(await auth.client.get("/users", headers=headers), 200)["items"]
    shown = {user["id"]: user for user in listed}
    assert len(shown) == len(dirt) + 1
    assert (shown["role"]["role"], shown["flag"]["is_active"], shown["date"]["created_at"]) == (
        "user",
        False,
        None,
    )

    for name, (column, _) in dirt.items():
        good = {"role_cd": "U", "reg_date": "2024-01-01 00:00:00"}.get(column, 1)
        await auth.legacy(f"UPDATE users SET {column} = $2 WHERE usr_id = $1", name, good)
    await auth.carry()
    await assert_equal(auth)
    assert not expect(await auth.client.get("/dual-write/failures", headers=headers), 200)["items"]


@pytest.mark.parametrize("phase", [Phase.DUALWRITE])
async def test_what_another_program_does_to_legacy_arrives(auth: Auth) -> None:
    await auth.legacy(
        "INSERT INTO users (usr_id, login_email, last_upd, reg_date, credit_cents) "
        "VALUES ('17850', 'Customer.17850@Example.com', '', '2010-12-01 08:26:00', 500)"
    )
    headers = await auth.admin()
    user = expect(await auth.client.get("/users/17850", headers=headers), 200)
    assert (user["email"], user["created_at"]) == ("Customer.17850@Example.com", "2010-12-01T08:26:00Z")
    assert (user["first_name"], user["updated_at"]) == (None, None)
    await auth.legacy("UPDATE users SET usr_id = 'web-1', first_nm = '' WHERE usr_id = '17850'")
    old, new = await auth.both("web-1")
    assert (old["first_nm"], new["first_name"], old["credit_cents"]) == ("", "", 500)
    assert not await auth.new("SELECT 1 FROM users WHERE id = '17850'")

    # Ours leaves what is not ours as it was.
    (await auth.manager.update_user("web-1", {"city": "Leeds"})).unwrap()
    old, new = await auth.both("web-1")
    assert (old["city"], old["credit_cents"], new["city"]) == ("Leeds", 500, "Leeds")
    await auth.legacy("DELETE FROM users WHERE usr_id = 'web-1'")
    await auth.carry()
    assert not await auth.new("SELECT 1 FROM user_profiles WHERE user_id = 'web-1'")


async def test_two_users_who_swap_addresses_are_carried(auth: Auth) -> None:
    one, two = await auth.register("one@example.com"), await auth.register("two@example.com")
    await auth.carry()
    run, column, key = (
        (auth.legacy, "login_email", "usr_id") if auth.phase is Phase.DUALWRITE else (auth.new, "email", "id")
    )
    parked = f"UPDATE users SET {column} = $2 WHERE {key} = $1"
    await run(parked, one["id"], "parked")
    await run(parked, two["id"], "one@example.com")
    await run(parked, one["id"], "two@example.com")
    await auth.carry()
    rows = await auth.new("SELECT id, email FROM users")
    assert {row["id"]: row["email"] for row in rows} == {
        one["id"]: "two@example.com",
        two["id"]: "one@example.com",
    }
    await assert_equal(auth)


def test_a_projection_names_only_what_its_table_has() -> None:
    for projection in (*USER.to_new, *USER.to_legacy):
        assert {column.name for column in projection.columns} <= set(projection.table.c.keys())
        assert select(*projection.columns) is not None
    assert "credit_cents" not in {column.name for column in USER.to_legacy[0].columns}
