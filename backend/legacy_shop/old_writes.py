"""What the old program tells about each row it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

Key: TypeAlias = int | str

#: The key column of each table that the old program writes to.
KEYS: Mapping[str, str] = {
    "users": "usr_id",
    "cat": "cat_no",
    "prod": "prod_no",
    "carts": "cart_no",
    "cart_lines": "line_no",
    "wish": "wish_no",
}


class Operation(StrEnum):
    """What the old program does; each is one transaction."""

    CHANGE_PRICE = "change_price"
    TOGGLE_DISCONTINUED = "toggle_discontinued"
    CORRECT_PHONE = "correct_phone"
    CORRECT_NAME = "correct_name"
    NEW_USER = "new_user"
    NEW_SALE = "new_sale"
    DELETE_WISH = "delete_wish"
    DELETE_SALE = "delete_sale"
    RENAME_CATEGORY = "rename_category"
    REPRICE_CATEGORY = "reprice_category"
    SWAP_STOCK_CODES = "swap_stock_codes"
    CHANGE_HOT_PRICE = "change_hot_price"
    CORRECT_INVOICE = "correct_invoice"


@dataclass(frozen=True, kw_only=True)
class OldWrite:
    """One row as an acknowledged transaction left it.

    `values` holds the columns that were written (for an insert all of them) as the server's `to_jsonb` shows them; it is
    empty when the row was deleted. Rows of the same transaction share its number. `acknowledged_at` is the program's
    clock after the answer to COMMIT.
    """

    operation: Operation
    transaction: int
    table: str
    key: Key
    values: Mapping[str, Any]
    deleted: bool
    acknowledged_at: datetime

    def to_dict(self) -> dict[str, Any]:
        return {
            "operation": self.operation.value,
            "transaction": self.transaction,
            "table": self.table,
            "key": self.key,
            "values": dict(self.values),
            "deleted": self.deleted,
            "acknowledged_at": self.acknowledged_at.isoformat(),
        }

    def to_json(self) -> str:
        """One line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> OldWrite:
        """The write of a line that `to_json` made."""
        found = json.loads(line)
        return cls(
            operation=Operation(found["operation"]),
            transaction=found["transaction"],
            table=found["table"],
            key=found["key"],
            values=found["values"],
            deleted=found["deleted"],
            acknowledged_at=datetime.fromisoformat(found["acknowledged_at"]),
        )
