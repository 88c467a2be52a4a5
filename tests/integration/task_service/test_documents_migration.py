"""The migration of the documents, as a program and beside its settings."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import WriteError

from backend.shared import ConfigurationError
from backend.shared.testing.ports import free_port
from backend.shared.testing.programs import REPOSITORY
from backend.task_service.app.documents import DOCUMENTS
from backend.task_service.app.documents.migrate import migrate

SECRET = "s3cr3t"
TOO_MUCH = {"name": "red", "unknown": 1}


async def options(url: str) -> dict[str, Any]:
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        cursor = await client.get_default_database().list_collections(filter={"name": "labels"})
        (found,) = await cursor.to_list()
        return dict(found["options"])


async def run_program(folder: Path, **variables: str) -> tuple[int, str, str]:
    """Run it where no stack has left its variables; answers exit code, stdout and stderr."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend.task_service.app.documents.migrate"),
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY), **variables},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await asyncio.wait_for(child.communicate(), 50)
    return child.returncode or 0, told.decode(), complaint.decode()


async def test_the_settings_decide_and_a_second_run_changes_nothing(document_url: str) -> None:
    place = {"MONGO_URL": document_url}
    assert await migrate(place) == tuple(DOCUMENTS)
    assert await migrate(place) == ()
    found = await options(document_url)
    assert (found["validationLevel"], found["validationAction"]) == ("moderate", "error")
    assert await migrate(place | {"TASK_VALIDATION_ACTION": "warn"}) == tuple(DOCUMENTS)
    assert await migrate(place | {"TASK_VALIDATION_LEVEL": "off"}) == tuple(DOCUMENTS)
    assert (await options(document_url))["validationLevel"] == "off"


@pytest.mark.parametrize(
    ("unknown", "taken"), [("", True), ("ignore", True), ("allow", True), ("forbid", False)]
)
async def test_unknown_fields_of_documents(document_url: str, unknown: str, *, taken: bool) -> None:
    await migrate({"MONGO_URL": document_url, "TASK_UNKNOWN_FIELDS": unknown})
    async with AsyncMongoClient[dict[str, Any]](document_url) as client:
        labels = client.get_default_database().labels
        if not taken:
            with pytest.raises(WriteError):
                await labels.insert_one(dict(TOO_MUCH))
        else:
            await labels.insert_one(dict(TOO_MUCH))
        assert await labels.count_documents({}) == int(taken)


async def test_it_makes_the_rules_that_a_schema_cannot_say(document_url: str) -> None:
    await migrate({"MONGO_URL": document_url})
    async with AsyncMongoClient[dict[str, Any]](document_url) as client:
        indexes = await client.get_default_database().users.index_information()
    assert {"email_id_1", "google_id_1"} <= set(indexes)


async def test_documents_that_are_a_side_are_found(document_url: str) -> None:
    """With ORM=dual they are the legacy database."""
    place = {
        "ORM": "dual",
        "LEGACY_DATABASE_URL": document_url,
        "DATABASE_URL": "postgresql://me@127.0.0.1/x",
        "MONGO_URL": "mongodb://elsewhere.invalid/x",
    }
    assert await migrate(place) == tuple(DOCUMENTS)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TASK_VALIDATION_LEVEL", "lax"),
        ("TASK_VALIDATION_ACTION", "shout"),
        ("TASK_UNKNOWN_FIELDS", "maybe"),
    ],
)
async def test_a_wrong_setting_is_named(document_url: str, variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}: must be one of"):
        await migrate({"MONGO_URL": document_url, variable: value})


async def test_the_program(document_url: str, tmp_path: Path) -> None:
    code, told, complaint = await run_program(
        tmp_path, MONGO_URL=document_url, TASK_VALIDATION_LEVEL="strict"
    )
    assert (code, complaint.count("Traceback")) == (0, 0), complaint
    assert told.splitlines()[-1].startswith("task documents: validators changed: users, ")
    away = f"mongodb://me:{SECRET}@127.0.0.1:{free_port()}/gone"
    for variables, said in (
        ({}, "TASK_MONGO_URL: is not set"),
        ({"MONGO_URL": away, "MONGO_SERVER_SELECTION_TIMEOUT_MS": "200"}, "MONGO_URL: not reachable"),
    ):
        code, told, complaint = await run_program(tmp_path, **variables)
        assert (code, told) == (2, "")
        assert complaint.startswith(f"task documents: {said}")
        assert complaint.count("\n") == 1
        assert SECRET not in complaint
