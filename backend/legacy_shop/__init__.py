"""The old shop: one shared legacy database, data to fill it with, and an old program that writes to it.

Knows nothing of the services or of the engine. The old program is `backend.legacy_shop.old_program`.
"""

from backend.legacy_shop.errors import LoadError
from backend.legacy_shop.generator import load_generated
from backend.legacy_shop.report import LoadReport
from backend.legacy_shop.retail import load_retail
from backend.legacy_shop.schema import SERIAL_KEYS, TABLES, create_schema, schema_sql
from backend.legacy_shop.size import ShopSize

__all__ = [
    "SERIAL_KEYS",
    "TABLES",
    "LoadError",
    "LoadReport",
    "ShopSize",
    "create_schema",
    "load_generated",
    "load_retail",
    "schema_sql",
]
