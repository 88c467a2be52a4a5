"""What a service asks and carries, by its phase and by who captures its changes."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from backend.cart_service.app.core.dual_write_manager import CartDualWriteManager
from backend.shared import ConfigurationError, DualWriteSettings, Phase
from backend.shared.api.running import side_checks
from backend.shared.domain.phases import Capture
from backend.shared.observability.metrics import Metrics

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"


class CartByUnit(CartDualWriteManager):
    """Without triggers nothing would carry what was taken in."""

    capture = Capture.UNIT


def cart(kind: type[CartDualWriteManager], phase: Phase) -> CartDualWriteManager:
    settings = DualWriteSettings(service="cart", phase=phase)
    return kind(NOWHERE, NOWHERE, settings, metrics=Metrics(CollectorRegistry()))


@pytest.mark.parametrize("phase", [Phase.OFF, Phase.SHADOW, Phase.LIVE])
def test_both_sides_are_asked_whether_they_are_there(phase: Phase) -> None:
    checks = side_checks(cart(CartDualWriteManager, phase))
    assert [check.name for check in checks] == ["legacy database", "new database"]
    assert [check.required for check in checks] == [phase is not Phase.LIVE, phase is Phase.LIVE]


def test_a_legacy_side_that_was_let_go_of_is_asked_nothing() -> None:
    checks = side_checks(cart(CartDualWriteManager, Phase.COMPLETE))
    assert [(check.name, check.required) for check in checks] == [("new database", True)]


def test_messages_need_triggers() -> None:
    with pytest.raises(ConfigurationError, match="cart: messages are carried by triggers"):
        cart(CartByUnit, Phase.DUALWRITE)
