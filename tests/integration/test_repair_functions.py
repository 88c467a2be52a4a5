"""Entities that a Python function maps are repaired through it, either way, and dry runs say so in the target's types."""

from __future__ import annotations

from backend.shared import Side, SyncValidator
from backend.shared.migration.repair import Repairer
from backend.shared.migration.repair_results import KeyRepair, RepairRequest
from backend.shared.observability.labels import Verdict
from tests.integration.test_validator_functions import CodedManager, Sides, coded

__all__ = ["coded"]


async def repaired(manager: CodedManager, *keys: str, **request: object) -> dict[str, KeyRepair]:
    done: list[KeyRepair] = []
    asked = RepairRequest(by="tester", keys=keys, **request)  # type: ignore[arg-type]
    await Repairer(manager.runtime, patience_seconds=0.5).run(asked, on_key=done.append)
    return {item.key: item for item in done}


async def verdict(manager: CodedManager) -> Verdict:
    return (await SyncValidator(manager.runtime).run(patience_seconds=0.2)).verdict


async def test_repaired_through_the_function(coded: Sides) -> None:
    manager, _, right = coded
    await right.execute("UPDATE decoded SET price = price + 0.01 WHERE no = 7")
    await right.execute("INSERT INTO decoded VALUES (10, 'extra')")
    await right.execute("DELETE FROM decoded WHERE no = 1")
    planned = await repaired(manager, "1", "7", "10", dry_run=True)
    assert {key: item.sql for key, item in planned.items()} == {
        "[1]": ("INSERT INTO decoded (no, label, price) VALUES (1, 'n1', 0.50);",),
        "[7]": ("UPDATE decoded SET price = 3.50 WHERE no = 7;",),
        "[10]": ("DELETE FROM decoded WHERE no = 10;",),
    }
    done = await repaired(manager, "1", "7", "10")
    assert {item.outcome.value for item in done.values()} == {"repaired"}
    assert await verdict(manager) is Verdict.EQUAL


async def test_repaired_backwards_through_the_function(coded: Sides) -> None:
    manager, left, right = coded
    await right.execute("UPDATE decoded SET price = 9.99 WHERE no = 7")
    await right.execute("DELETE FROM decoded WHERE no = 1")
    planned = await repaired(manager, "1", "7", source=Side.NEW, dry_run=True)
    assert {key: item.sql for key, item in planned.items()} == {
        "[1]": ("DELETE FROM coded WHERE no = 1;",),
        "[7]": ("UPDATE coded SET code = 'n7|9.99' WHERE no = 7;",),
    }
    done = await repaired(manager, "1", "7", source=Side.NEW)
    assert {item.outcome.value for item in done.values()} == {"repaired"}, done
    assert await left.fetchval("SELECT code FROM coded WHERE no = 7") == "n7|9.99"
    assert await left.fetchval("SELECT count(*) FROM coded WHERE no = 1") == 0
    assert await manager.relay().drain(timeout_seconds=5)
    assert await verdict(manager) is Verdict.EQUAL
