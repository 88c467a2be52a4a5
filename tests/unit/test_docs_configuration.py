"""`docs/configuration.md` names every variable that the code reads, with the default that it has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backend.shared.dual_write_config import _VARIABLES, DualWriteSettings
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


def test_nothing_is_documented_that_does_not_exist() -> None:
    known = re.compile(r"(?:(?:AUTH|PRODUCT|CART)_)?(DUAL_WRITE_[A-Z_]*[A-Z])")
    named = {found[1] for name in _NAMED if (found := known.fullmatch(name))}
    assert named <= set(_VARIABLES)
