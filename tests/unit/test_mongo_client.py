"""URLs and limits of MongoDB: what is taken, what is refused, and that no refusal shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from backend.shared.domain.errors import ConfigurationError
from backend.shared.stores.mongo.client import create_client, is_mongo_url, parse_mongo_url
from backend.shared.stores.mongo.limits import DocumentLimits


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("mongodb://127.0.0.1:27017/poc", "poc"),
        ("mongodb://shop:p%40ss@a:1,b:2/poc?replicaSet=x&w=majority&journal=true", "poc"),
        ("mongodb+srv://shop:s3cret@cluster.example.org/poc?retryWrites=true", "poc"),
        ("mongodb://h/p%C3%B6c", "pöc"),
    ],
)
async def test_good_url(url: str, database: str) -> None:
    assert is_mongo_url(url)
    parsed = parse_mongo_url(url, variable="TASK_DATABASE_URL")
    assert parsed.database == database
    assert "s3cret" not in repr(parsed)
    client = create_client(url, application_name="test")
    try:
        assert client.get_default_database().name == database
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://shop:s3cret@db/poc", "is no MongoDB URL"),
        ("mongodb://shop:s3cret@db", "names no database"),
        ("mongodb://shop:s3cret@db/?replicaSet=x", "names no database"),
        ("mongodb+srv://shop:s3cret@cluster.example.org", "names no database"),
        ("mongodb://shop:s3cret@db/a.b", "names a database that cannot be"),
        ("mongodb://shop:x/s3cret@db/poc", "percent-encoded"),
        ("mongodb+srv://shop:x/s3cret@cluster.example.org/poc", "percent-encoded"),
        ("mongodb+srv://shop:s3cret@cluster.example.org:27017/poc", "can be read"),
        ("mongodb://shop:x@s3cret@db/poc", "percent-encoded"),
        ("mongodb://db/poc?s3cret", "a parameter, which MongoDB's driver does not take"),
        ("mongodb://db/poc?unheard=s3cret", "'unheard'"),
        ("mongodb://db/poc?tlsCertificateKeyFile=/s3cret", "'tlsCertificateKeyFile'"),
        ("mongodb://db/poc?maxPoolSize=5", "set MONGO_MAX_POOL_SIZE instead"),
        ("mongodb://db/poc?w=1", "must be majority"),
        ("mongodb://db/poc?journal=false", "must be true"),
    ],
)
@pytest.mark.parametrize("use", [parse_mongo_url, create_client])
def test_bad_url_is_refused_and_not_shown(use: Any, url: str, said: str) -> None:
    named = {"application_name": "test"} if use is create_client else {}
    with pytest.raises(ConfigurationError) as caught:
        use(url, variable="TASK_DATABASE_URL", **named)
    assert caught.value.variable == "TASK_DATABASE_URL"
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_limits_reach_the_driver() -> None:
    limits = DocumentLimits(
        max_pool_size=7,
        min_pool_size=2,
        wait_queue_timeout_ms=1_100,
        connect_timeout_ms=1_200,
        server_selection_timeout_ms=1_300,
        max_time_ms=1_400,
        socket_timeout_ms=1_500,
    )
    client = create_client("mongodb://127.0.0.1/poc?retryWrites=true", application_name="test", limits=limits)
    try:
        pool = client.options.pool_options
        assert (pool.max_pool_size, pool.min_pool_size) == (7, 2)
        assert (pool.wait_queue_timeout, pool.connect_timeout, pool.socket_timeout) == (1.1, 1.2, 1.5)
        assert client.options.server_selection_timeout == 1.3
        assert client.write_concern.document == {"w": "majority", "j": True}
        assert client.options.retry_writes
        assert client.codec_options.tz_aware
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MONGO_MAX_POOL_SIZE", "0", "must be from 1 to 1000"),
        ("TASK_MONGO_MAX_POOL_SIZE", "many", "must be a whole number"),
        ("TASK_MONGO_MIN_POOL_SIZE", "21", "above MONGO_MAX_POOL_SIZE"),
        ("MONGO_MAX_TIME_MS", "0", "must be from"),
        ("MONGO_WAIT_QUEUE_TIMEOUT_MS", "-1", "must be from"),
        ("MONGO_CONNECT_TIMEOUT_MS", "1.5", "whole"),
        ("MONGO_SERVER_SELECTION_TIMEOUT_MS", "nan", "whole"),
        ("MONGO_SOCKET_TIMEOUT_MS", "99999999999", "must be from"),
    ],
)
def test_bad_limit_names_its_variable(variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        DocumentLimits.from_env("TASK", {variable: value})
    assert str(caught.value.variable) in variable


def test_limits_of_a_service_win() -> None:
    environment = {"MONGO_MAX_TIME_MS": "1000", "TASK_MONGO_MAX_TIME_MS": "2000", "MONGO_MIN_POOL_SIZE": " "}
    assert DocumentLimits.from_env("TASK", environment).max_time_ms == 2000
    assert DocumentLimits.from_env("CART", environment).max_time_ms == 1000
    assert DocumentLimits.from_env("CART", environment).min_pool_size == 0
