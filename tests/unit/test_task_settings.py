"""What the task service is told, and what it says when that is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backend.shared import ConfigurationError
from backend.task_service.app.adapters.given import GivenRepositories
from backend.task_service.app.adapters.single import SingleStore
from backend.task_service.app.container import make_store
from backend.task_service.app.core.settings import Address, Orm, TaskSettings
from backend.task_service.app.services.people import PeopleService
from tests.support.fake_task_store import fake_repositories

SECRET = "s3cr3t"


def test_settings_come_from_the_environment() -> None:
    assert TaskSettings.from_env({}) == TaskSettings()
    given = TaskSettings.from_env(
        {
            "ORM": " Mongo ",
            "DATABASE_URL": "sqlite:///a",
            "TASK_DATABASE_URL": "sqlite:///b",
            "MONGO_URL": f"mongodb://me:{SECRET}@host/tasks",
            "AUTH_PUBLIC_KEY_FILE": "key.pem",
            "AUTH_JWKS_URL": " http://auth/keys ",
        }
    )
    assert given == TaskSettings(
        orm=Orm.MONGO,
        database=Address(url="sqlite:///b", variable="TASK_DATABASE_URL"),
        mongo=Address(url=f"mongodb://me:{SECRET}@host/tasks", variable="MONGO_URL"),
        jwks_url="http://auth/keys",
        public_key_file=Path("key.pem"),
    )
    assert SECRET not in repr(given)


@pytest.mark.parametrize(
    ("told", "variable"),
    [
        ({"ORM": "django"}, "ORM"),
        ({}, "TASK_DATABASE_URL"),
        ({"ORM": "peewee", "MONGO_URL": "mongodb://host/tasks"}, "TASK_DATABASE_URL"),
        ({"ORM": "mongo", "DATABASE_URL": "sqlite:///a"}, "TASK_MONGO_URL"),
        *(
            ({"ORM": orm, "DATABASE_URL": url}, "DATABASE_URL")
            for orm in ("sqlalchemy", "peewee")
            for url in (
                "nonsense",
                f"mysql://me:{SECRET}@host/tasks",
                f"postgresql://me:{SECRET}@host",
                f"postgresql://me:{SECRET}@host/tasks?colour=red",
                "sqlite://",
                "sqlite:///:memory:",
                "sqlite:///a?mode=ro",
            )
        ),
        ({"ORM": "peewee", "TASK_DATABASE_URL": "postgresql://host/a?pgbouncer=true"}, "TASK_DATABASE_URL"),
        *(
            ({"ORM": "mongo", "MONGO_URL": url}, "MONGO_URL")
            for url in (
                "nonsense",
                f"postgresql://me:{SECRET}@host/tasks",
                f"mongodb://me:{SECRET}@host",
                f"mongodb://me:{SECRET}@host:port/tasks",
                f"mongodb://me:{SECRET}@host/tasks?authMechanism=x",
            )
        ),
    ],
)
def test_what_is_wrong_is_said_by_the_variables_name(told: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_store(TaskSettings.from_env(told))
    assert str(refused.value).startswith(f"{variable}: ")
    assert refused.value.variable == variable
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("orm", "package", "extra"),
    [("peewee", "peewee", "peewee"), ("peewee", "playhouse", "peewee"), ("mongo", "pymongo", "mongo")],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, orm: str, package: str, extra: str
) -> None:
    for module in list(sys.modules):
        if module.startswith(f"backend.task_service.app.adapters.{orm}") or module.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    urls = {"DATABASE_URL": "sqlite:///a", "MONGO_URL": "mongodb://host/tasks"}
    with pytest.raises(ConfigurationError, match=f"ORM: .*{package}: install the extra '{extra}'"):
        make_store(TaskSettings.from_env({"ORM": orm} | urls))


async def test_each_mode_opens_its_own_store() -> None:
    urls = {"DATABASE_URL": "sqlite:///a", "MONGO_URL": "mongodb://host/tasks"}
    for orm in ("sqlalchemy", "peewee", "mongo"):
        store = make_store(TaskSettings.from_env({"ORM": orm} | urls))
        assert isinstance(store, SingleStore)
        assert f".{orm}." in type(store._transactions).__module__
        await store.close()


async def test_repositories_may_be_handed_in() -> None:
    repositories = fake_repositories()
    store = make_store(TaskSettings.from_env({}), repositories=repositories)
    assert isinstance(store, GivenRepositories)
    await store.start()
    await store.check()
    user = await PeopleService(store).create_user(email="a@b", name=None, google_id=None)
    assert await repositories.users.get(user.id) == user
    assert await PeopleService(store).get_user(user.id) == user
    await store.close()
