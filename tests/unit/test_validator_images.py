"""What goes into a hash: no less than the value. Not every build of PostgreSQL has a nondeterministic collation."""

from __future__ import annotations

import pytest

from backend.shared.validation.images import image, record_hash


@pytest.mark.parametrize(
    "kind", ["text", "character varying(20)", "json", "jsonb", "integer[]", "mood", "FLOAT(24)"]
)
def test_texts_and_what_is_unknown_go_in_by_their_bytes(kind: str) -> None:
    assert image("q.x", kind) == '(q.x)::text COLLATE "C"'


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("bigint", "int8send"),
        ("NUMERIC(12, 2)", "numeric_send"),
        ("numeric", "numeric_send"),
        ("TIMESTAMP(3) WITH TIME ZONE", "timestamptz_send"),
        ("DOUBLE PRECISION", "float8send"),
        ("INTERVAL", "interval_send"),
    ],
)
def test_what_has_a_hash_that_folds_goes_in_as_it_is_sent(kind: str, sent: str) -> None:
    assert image("q.x", kind) == f"{sent}(q.x)"


def test_the_hash_of_a_row_is_not_linear_in_its_fields() -> None:
    assert record_hash(["q.a", "q.b"]) == "hashint4extended(0, hash_record_extended(ROW(q.a, q.b), 0))"
