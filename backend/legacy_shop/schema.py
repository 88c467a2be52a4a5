"""Makes the legacy tables."""

from __future__ import annotations

from importlib.resources import files

from backend.legacy_shop.connection import connected

#: Parents before children.
TABLES = ("users", "cat", "prod", "carts", "cart_lines", "wish")

#: Tables whose key is drawn from a sequence, and that key.
SERIAL_KEYS = {
    "cat": "cat_no",
    "prod": "prod_no",
    "carts": "cart_no",
    "cart_lines": "line_no",
    "wish": "wish_no",
}


def schema_sql() -> str:
    """The statements that make the tables."""
    return files("backend.legacy_shop").joinpath("schema.sql").read_text(encoding="utf-8")


async def create_schema(dsn: str) -> None:
    """Make the legacy tables in schema `public`, all or none. Tables that are there already stay as they are.

    Raises `LoadError` when the database cannot be reached or refuses.
    """
    async with connected(dsn, application_name="legacy-schema") as connection, connection.transaction():
        await connection.execute("SET LOCAL client_min_messages = warning")
        await connection.execute("SET LOCAL search_path = public")
        await connection.execute(schema_sql())
