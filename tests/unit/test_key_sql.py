"""Ranges of keys as SQL, whatever is in the keys."""

from __future__ import annotations

from backend.shared.stores.postgres.key_sql import KeyColumns, KeyRange

KEY = KeyColumns(columns=["q.a", "q.n"], types=["text", "integer"])


def test_an_open_end_asks_for_nothing() -> None:
    assert KeyRange().of(KEY) == ("", ())
    condition, bounds = KeyRange(upper='["x", 1]').of(KEY)
    assert (
        condition == "WHERE (q.a, q.n) <= (($1::text::jsonb ->> 0)::text, ($1::text::jsonb ->> 1)::integer)"
    )
    assert bounds == ('["x", 1]',)


def test_only_texts_are_given_a_collation() -> None:
    assert KEY.by_bytes.columns == ['q.a COLLATE "C"', "q.n"]


def test_a_key_that_looks_like_a_parameter_stays_a_key() -> None:
    """Written out one after the other, the upper bound would get into the literal of the lower one."""
    condition = KeyRange(lower='["$2::text", 1]', upper='["it\'s \\\\ ", 2]').literally(KEY)
    lower, upper = """E'["$2::text", 1]'""", r"""E'["it''s \\\\ ", 2]'"""
    assert condition == (
        f"WHERE (q.a, q.n) > (({lower}::text::jsonb ->> 0)::text, ({lower}::text::jsonb ->> 1)::integer) "
        f"AND (q.a, q.n) <= (({upper}::text::jsonb ->> 0)::text, ({upper}::text::jsonb ->> 1)::integer)"
    )
