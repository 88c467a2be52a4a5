"""`docs/configuration.md` names every variable that the code reads, with the default that it has."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from backend.shared.database import DATABASE_LIMITS, DatabaseLimits
from backend.shared.dual_write_config import _VARIABLES, DualWriteSettings
from backend.shared.limits import Limit
from backend.shared.stores.mongo.limits import DOCUMENT_LIMITS, DocumentLimits
from backend.shared.testing.programs import REPOSITORY

PAGE = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
_NAMED = set(re.findall(r"`([A-Z][A-Z_]+[A-Z])`", PAGE))
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)
_READ = re.compile(r'"([A-Z]+(?:_[A-Z]+)+)"')
_OF_SERVICES = sorted(
    {
        variable
        for path in (REPOSITORY / "backend").glob("*_service/app/core/settings.py")
        for variable in _READ.findall(path.read_text(encoding="utf-8"))
    }
)
_OF_THE_STACK = sorted(set(_READ.findall((REPOSITORY / "backend/demo/stack.py").read_text(encoding="utf-8"))))
_EXAMPLE = dict(
    re.findall(r"^([A-Z_]+)=(.*)$", (REPOSITORY / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
)
_LIMITS = [
    *((limit, DatabaseLimits()) for limit in DATABASE_LIMITS),
    *((limit, DocumentLimits()) for limit in DOCUMENT_LIMITS),
]
_INTERNAL = {"PYTHONUNBUFFERED"}


@pytest.mark.parametrize("variable", [*_VARIABLES, "LEGACY_DATABASE_URL", "DATABASE_URL", *_OF_SERVICES])
def test_every_variable_is_documented(variable: str) -> None:
    assert variable in _NAMED


@pytest.mark.parametrize("variable", [name for name in _OF_THE_STACK if name not in _INTERNAL])
def test_every_variable_of_the_stack_is_documented(variable: str) -> None:
    assert variable in _NAMED


@pytest.mark.parametrize("variable", list(_VARIABLES))
def test_documented_default_is_the_one_that_holds(variable: str) -> None:
    name, parse = _VARIABLES[variable]
    documented = dict(_ROW.findall(PAGE))
    expected: Any = getattr(DualWriteSettings(), name)
    assert parse(documented[variable]) == expected


@pytest.mark.parametrize(("limit", "defaults"), _LIMITS, ids=lambda value: getattr(value, "variable", ""))
def test_documented_limit_and_that_of_the_example_are_those_that_hold(limit: Limit, defaults: object) -> None:
    documented = dict(_ROW.findall(PAGE))
    expected = getattr(defaults, limit.field)
    assert limit.parse(documented[limit.variable]) == limit.parse(_EXAMPLE[limit.variable]) == expected


def test_every_field_of_the_limits_has_its_variable() -> None:
    for limits, table in ((DatabaseLimits, DATABASE_LIMITS), (DocumentLimits, DOCUMENT_LIMITS)):
        assert {field.name for field in fields(limits)} == {limit.field for limit in table}


def test_nothing_is_documented_that_does_not_exist() -> None:
    known = re.compile(r"(?:(?:AUTH|PRODUCT|CART)_)?(DUAL_WRITE_[A-Z_]*[A-Z])")
    named = {found[1] for name in _NAMED if (found := known.fullmatch(name))}
    assert named <= set(_VARIABLES)
    of_limits = re.compile(r"(?:CART_)?((?:DB|MONGO)_[A-Z_]*[A-Z])")
    named = {found[1] for name in _NAMED if (found := of_limits.fullmatch(name))}
    assert named - {"DB_PASSWORD", "MONGO_URL"} <= {limit.variable for limit, _ in _LIMITS}
