"""Settings of one transaction, whatever a role or a database has set otherwise."""

from __future__ import annotations

from collections.abc import Mapping

PRINTED_ALIKE = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}
"""What the text of a value depends on: equal values would print differently or, worse, the other way round.

DateStyle keeps its order of day and month. `lc_monetary` is none of these: what it prints, another server reads by its own.
"""


def set_locally(settings: Mapping[str, str]) -> str:
    """A statement that sets `settings` to the end of the transaction, so that it holds behind PgBouncer too."""
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
