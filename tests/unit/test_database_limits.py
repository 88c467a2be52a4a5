"""Limits of PostgreSQL's pools: read per service, held within bounds, and handed on to the driver."""

from __future__ import annotations

import pytest
from sqlalchemy.pool import QueuePool

from backend.shared.database import DATABASE_LIMITS, DatabaseLimits, create_side_engine
from backend.shared.domain.errors import ConfigurationError
from backend.shared.stores.postgres.side import bound_of


def test_every_limit_can_be_set_and_that_of_the_service_wins() -> None:
    values = {"DB_POOL_SIZE": "3", "DB_MAX_OVERFLOW": "2", "DB_POOL_TIMEOUT": "0.5", "DB_POOL_RECYCLE": "60"}
    values |= {"DB_POOL_PRE_PING": "yes", "DB_CONNECT_TIMEOUT": "1.5", "DB_STATEMENT_TIMEOUT": "2"}
    values |= {"DB_LOCK_TIMEOUT": "0.25", "DB_IDLE_IN_TRANSACTION_TIMEOUT": "9"}
    assert set(values) == {limit.variable for limit in DATABASE_LIMITS}
    environment = values | {
        "CART_DB_POOL_SIZE": "4",
        "AUTH_DB_POOL_SIZE": "nonsense",
        "CART_DB_POOL_TIMEOUT": "",
    }
    assert DatabaseLimits.from_env("cart", environment) == DatabaseLimits(
        pool_size=4,
        max_overflow=2,
        pool_wait_seconds=0.5,
        pool_recycle_seconds=60,
        pool_pre_ping=True,
        connect_seconds=1.5,
        statement_seconds=2,
        lock_seconds=0.25,
        idle_in_transaction_seconds=9,
    )
    assert DatabaseLimits.from_env("product", {}) == DatabaseLimits()


@pytest.mark.parametrize("variable", [limit.variable for limit in DATABASE_LIMITS])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "many", "99999999"])
@pytest.mark.parametrize("prefix", ["", "CART_"])
def test_bad_limit_names_its_variable(prefix: str, variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseLimits.from_env("CART", {prefix + variable: value})
    assert caught.value.variable == prefix + variable


def test_limit_given_by_a_program_is_held_to_the_same_bounds() -> None:
    with pytest.raises(ConfigurationError, match="DB_POOL_SIZE: must be from 1 to 1000"):
        DatabaseLimits(pool_size=0)


async def test_limits_reach_the_pool() -> None:
    limits = DatabaseLimits(pool_size=3, max_overflow=2, pool_wait_seconds=0.5, pool_recycle_seconds=60)
    engine = create_side_engine("postgresql://h/db", application_name="test", limits=limits)
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    assert (pool.size(), bound_of(pool), pool.timeout(), pool._recycle) == (3, 5, 0.5, 60)
    assert not pool._pre_ping
    pinging = create_side_engine(
        "postgresql://h/db", application_name="test", limits=DatabaseLimits(pool_pre_ping=True)
    )
    assert pinging.pool._pre_ping
