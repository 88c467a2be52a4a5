"""`MESSAGES_DELIVERY`."""

from __future__ import annotations

import pytest

from backend.shared.domain.errors import ConfigurationError
from backend.shared.events.delivered_by import DeliveredBy, delivered_by


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, DeliveredBy.OUTBOX),
        ({"MESSAGES_DELIVERY": " None "}, DeliveredBy.NONE),
        ({"MESSAGES_DELIVERY": "none", "ORDER_MESSAGES_DELIVERY": "outbox"}, DeliveredBy.OUTBOX),
        ({"PRODUCT_MESSAGES_DELIVERY": "none"}, DeliveredBy.OUTBOX),
    ],
)
def test_that_of_the_service_wins(environment: dict[str, str], expected: DeliveredBy) -> None:
    assert delivered_by("order", environment) is expected


@pytest.mark.parametrize("variable", ["MESSAGES_DELIVERY", "ORDER_MESSAGES_DELIVERY"])
def test_a_wrong_one_is_named(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{variable}.* must be one of outbox, none"):
        delivered_by("order", {variable: "debezium"})
