"""Between the documents of ten collections and the rows of the tables, both ways and without loss.

A row's `extra` may still say something that its columns no longer do, when the row was changed by SQL. So rows are
compared in their canonical form: `rows_of(document_of(rows))`.
"""

from .bson_text import CODEC
from .collections import CATALOG, COLLECTIONS
from .shapes import Collection, Items

__all__ = ["CATALOG", "CODEC", "COLLECTIONS", "Collection", "Items"]
