"""What `docs/model/check` makes of the checker's output: only a whole and exact search says that the model holds."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

CHECK = Path(__file__).resolve().parents[2] / "docs" / "model" / "check"

HOLDS = """
Full statespace search for:
	assertion violations	+
	invalid end states	+

State-vector 100 byte, depth reached 305, errors: 0
  2133142 states, stored
"""
FOUND = """pan:1: assertion violated I3_never_older (at depth 42)
pan: wrote tandem.pml.trail

(Spin Version 6.5.2 -- 6 December 2019)
Warning: Search not completed

State-vector 116 byte, depth reached 371, errors: 1
    51823 states, stored
"""
CUT_SHORT = "error: max search depth too small\n" + HOLDS
ENDLESS = "pan:1: non-progress cycle (at depth 12)\n" + HOLDS.replace("errors: 0", "errors: 1")


@pytest.fixture(scope="module")
def check() -> Any:
    loader = SourceFileLoader("model_check", str(CHECK))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module
    try:
        loader.exec_module(module)
    finally:
        del sys.modules[loader.name]
    return module


def test_a_whole_search_without_errors_holds(check: Any) -> None:
    verdict = check.parse(HOLDS)
    assert (verdict.states, verdict.depth, verdict.violated, verdict.trouble) == (2133142, 305, None, None)
    assert verdict.as_expected(check.Run(name="handover", defines=""))


def test_a_violation_is_told_by_its_name(check: Any) -> None:
    verdict = check.parse(FOUND)
    assert verdict.violated == "I3_never_older"
    assert verdict.as_expected(check.Run(name="NO_FLOOR", defines="", finds=("I2_x", "I3_never_older")))
    assert not verdict.as_expected(check.Run(name="NO_FENCE", defines="", finds=("I4_one_side_accepts",)))
    assert not verdict.as_expected(check.Run(name="copy", defines=""))


def test_a_variant_in_which_nothing_is_found_is_a_failure(check: Any) -> None:
    run = check.Run(name="NO_FLOOR", defines="", finds=("I3_never_older",))
    assert not check.parse(HOLDS).as_expected(run)
    assert check.report(run, check.parse(HOLDS), 1.0).startswith("FAILED")


def test_a_run_without_an_end_is_a_violation(check: Any) -> None:
    assert check.parse(ENDLESS).violated == "non-progress cycle"


@pytest.mark.parametrize(
    "output",
    [
        "",
        CUT_SHORT,
        HOLDS.replace("Full statespace", "Bit statespace"),
        HOLDS + "Warning: Search not completed\n",
        "pan:1: invalid end state (at depth 9)\n" + HOLDS.replace("errors: 0", "errors: 1"),
        "pan: reached -DMEMLIM bound\n"
        + HOLDS.replace("errors: 0", "errors: 0\nWarning: Search not completed"),
    ],
    ids=["nothing", "depth", "approximate", "stopped", "deadlock", "memory"],
)
def test_a_search_that_says_nothing_is_no_proof(check: Any, output: str) -> None:
    verdict = check.parse(output)
    assert verdict.trouble
    assert not verdict.as_expected(check.Run(name="handover", defines=""))
    assert not verdict.as_expected(check.Run(name="NO_GUARD", defines="", finds=("I3_never_older",)))


def test_every_run_has_its_own_name(check: Any) -> None:
    names = [run.name for run in (*check.PROTOCOL, *check.ENDLESS, *check.WITNESSES, *check.BROKEN)]
    assert len(names) == len(set(names))


def test_each_define_that_takes_a_mechanism_out_is_run_and_listed(check: Any) -> None:
    model = "".join(path.read_text(encoding="utf-8") for path in CHECK.parent.glob("*.pml"))
    page = (CHECK.parent / "README.md").read_text(encoding="utf-8")
    for run in (*check.WITNESSES, *check.BROKEN):
        assert run.name in model, f"{run.name} is in no .pml"
        assert f"`{run.name}`" in page, f"{run.name} is not in README.md"
