"""Names of triggers: PostgreSQL cuts a long one without a word."""

from __future__ import annotations

from backend.shared.journal.triggers import LONGEST_NAME, OPERATIONS, bounded_name


def test_a_name_that_fits_stays() -> None:
    assert bounded_name("tandem_cart_carts_fence_insert") == "tandem_cart_carts_fence_insert"


def test_long_names_stay_apart_and_fit() -> None:
    table = "a_table_with_a_name_that_is_as_long_as_postgresql_lets_it_be_63"
    made = {bounded_name(f"tandem_cart_{table}_{kind}") for kind in OPERATIONS}
    made |= {bounded_name(f"tandem_cart_{table}_fence_{kind}") for kind in OPERATIONS}
    assert len({name[:LONGEST_NAME] for name in made}) == 2 * len(OPERATIONS)
    assert all(len(name.encode()) <= LONGEST_NAME for name in made)
