"""What a running stack shows to the programs round it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.demo.stack import Stack
from backend.shared.cli.services import manager_class
from backend.shared.testing.programs import REPOSITORY

pytestmark = [
    pytest.mark.xdist_group("stack"),  # one worker: a stack is dear
    pytest.mark.timeout(180),  # whichever comes first starts it
]
SERVICES = ["auth", "product", "cart"]
ENTITIES = sum(len(manager_class(service).catalog().ordered) for service in SERVICES)


def script(stack: Stack, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / name), *arguments],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )


@pytest.mark.parametrize("service", SERVICES)
def test_prometheus_text_of_each_service_and_relay(stack: Stack, admin_token: str, service: str) -> None:
    headers = {"Authorization": f"Bearer {admin_token}"}
    base = stack.env[f"{service.upper()}_URL"]
    httpx.post(f"{base}/dual-write/test-operation", headers=headers, timeout=30).raise_for_status()
    text = httpx.get(f"{base}/metrics", timeout=10).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (s.labels["operation"], s.labels["outcome"]): s.value
        for s in families["dualwrite_operations"].samples
        if s.name == "dualwrite_operations_total" and s.labels["side"] == "legacy"
    }
    assert samples["probe", "succeeded"] >= 1
    for name in ("lag_seconds", "journal_rows", "failures_open", "breaker_state", "pool_size_connections"):
        assert f"dualwrite_{name}" in families
    as_json = httpx.get(f"{base}/dual-write/metrics", headers=headers, timeout=10).json()
    assert any(item["operation"] == "probe" for item in as_json["operations"])
    relay = httpx.get(stack.env[f"{service.upper()}_RELAY_METRICS_URL"], timeout=10).text
    assert "dualwrite_relay_keys" in {family.name for family in text_string_to_metric_families(relay)}


async def test_change_by_another_program_in_a_legacy_table_arrives(stack: Stack) -> None:
    """What psql would do: straight SQL in the legacy table, and nothing else."""
    legacy = await asyncpg.connect(stack.env["LEGACY_DATABASE_URL"])
    new = await asyncpg.connect(stack.env["PRODUCT_DATABASE_URL"])
    try:
        await legacy.execute("UPDATE prod SET price_cents = 12345, descr = 'by hand' WHERE prod_no = 3")
        deadline = time.monotonic() + 20
        found = None
        while time.monotonic() < deadline and found != ("123.45", "by hand"):
            found = tuple(await new.fetchrow("SELECT price::text, name FROM products WHERE id = 3"))
            await asyncio.sleep(0.05)
        assert found == ("123.45", "by hand")
    finally:
        await legacy.close()
        await new.close()


def test_every_operation_of_every_manager_passes_and_leaves_nothing(stack: Stack) -> None:
    done = script(stack, "test_dual_write.py")
    report = json.loads(done.stdout)
    failed = [result for result in report["test_results"] if not result["success"]]
    assert failed == []
    assert done.returncode == 0
    assert report["summary"] == {
        "total_tests": len(report["test_results"]),
        "passed_tests": len(report["test_results"]),
        "failed_tests": 0,
        "success_rate": 100.0,
    }
    assert {result["test_name"].partition(".")[0] for result in report["test_results"]} == set(SERVICES)
    for result in report["test_results"]:
        assert {"new_db_success", "legacy_db_success", "sync_validated"} <= result["details"].keys()


async def test_validation_script_finds_one_planted_cent_and_nothing_else(stack: Stack) -> None:
    done = script(stack, "validate_data_sync.py", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["equal"] == report["summary"]["entities"] == ENTITIES
    new = await asyncpg.connect(stack.env["PRODUCT_DATABASE_URL"])
    try:
        await new.execute("UPDATE products SET price = price + 0.01 WHERE id = 5")
        done = script(stack, "validate_data_sync.py", "--json", "--service", "product")
        await new.execute("UPDATE products SET price = price - 0.01 WHERE id = 5")
    finally:
        await new.close()
    assert done.returncode == 1
    product = next(item for item in json.loads(done.stdout)["entities"] if item["entity"] == "product")
    assert (product["different"], product["verdict"]) == (1, "different")
    assert product["mismatches"] == [{"key": "[5]", "kind": "different", "fields": {"products.price": {}}}]


@pytest.mark.parametrize("name", ["validate_data_sync.py", "test_dual_write.py"])
def test_scripts_without_a_database_say_so_in_one_line(stack: Stack, name: str) -> None:
    nowhere = "postgresql://user:hunter2@127.0.0.1:1/nothing"
    env = {key: value for key, value in os.environ.items() if "DATABASE_URL" not in key}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / name), "--service", "cart"],
        env=env | {"LEGACY_DATABASE_URL": nowhere, "DATABASE_URL": nowhere},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "LEGACY_DATABASE_URL" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
