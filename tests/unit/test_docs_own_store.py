"""`docs/howto/own-store.md` names the parts that there are."""

from __future__ import annotations

import re

from backend.shared.stores.side import SideStore
from backend.shared.stores.side_records import StoreKind
from backend.shared.testing.programs import REPOSITORY
from tests.contract.conftest import Kind

PAGE = (REPOSITORY / "docs" / "howto" / "own-store.md").read_text(encoding="utf-8")


def _members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def test_every_part_that_is_named_is_there() -> None:
    parts = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert {name for name, _ in parts} == {"journal", "failures", "marks", "state", "conflicts", "stranded"}
    for name, protocol in parts:
        kept = vars(SideStore)[name].fget.__annotations__["return"]
        assert kept == protocol, name


def test_the_members_that_the_contract_asks_for_are_named() -> None:
    _, _, contract = PAGE.partition("## 2. The contract")
    named = set(re.findall(r"^\| `(\w+)` \|", contract, re.MULTILINE))
    assert named == _members(Kind)


def test_the_kinds_are_named() -> None:
    assert {kind.value for kind in StoreKind} == {"postgres", "mongo"}, "the page says that there are two"
