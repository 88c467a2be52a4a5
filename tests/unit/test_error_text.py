"""What is said of an error holds nothing of what a message, a row or a setting holds."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel
from pydantic import ValidationError as InvalidError

from backend.shared.domain.errors import NotFoundError
from backend.shared.error_text import said_of


def _known(found: str) -> str:
    raise ValueError(f"nobody knows {found}")


class Line(BaseModel):
    count: int
    person: Annotated[str, AfterValidator(_known)]
    on: bool


class Order(BaseModel):
    lines: list[Line]


SECRET = "s3cret"


def test_of_bad_input_field_and_fault_are_named() -> None:
    with pytest.raises(InvalidError) as caught:
        Order.model_validate({"lines": [{"count": SECRET, "person": SECRET}]})
    assert SECRET in str(caught.value)
    assert said_of(caught.value) == (
        "ValidationError: lines.0.count: Input should be a valid integer, unable to parse string as an integer; "
        "lines.0.person: value_error; lines.0.on: Field required"
    )


def test_of_much_bad_input_the_first_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        Order.model_validate({"lines": [{}] * 4})
    assert said_of(caught.value).count("Field required") == 5
    assert said_of(caught.value).endswith("; and 7 more")


def test_our_own_text_is_repeated() -> None:
    assert said_of(NotFoundError("there is no order 7")) == "NotFoundError: there is no order 7"


def test_of_anything_else_the_place_is_told() -> None:
    with pytest.raises(ValueError, match=SECRET) as caught:
        _known(SECRET)
    assert SECRET not in said_of(caught.value)
    assert said_of(caught.value).startswith("ValueError: at test_error_text.py:")
    assert said_of(caught.value).endswith(" _known")


def test_of_a_database_only_the_kind_is_told() -> None:
    assert (
        said_of(ConnectionRefusedError(SECRET))
        == "ConnectionRefusedError: not reachable (ConnectionRefusedError)"
    )
