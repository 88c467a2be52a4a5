"""The tables of the shared legacy database that this service owns rows of, as far as it knows them."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, MetaData, SmallInteger, String, Table
from sqlalchemy.dialects.postgresql import TIMESTAMP

METADATA = MetaData()

cat = Table(
    "cat",
    METADATA,
    Column("cat_no", Integer, primary_key=True),
    Column("cat_path", String(300), nullable=False, unique=True),
)

prod = Table(
    "prod",
    METADATA,
    Column("prod_no", Integer, primary_key=True),
    Column("stock_code", String(20), nullable=False, unique=True),
    Column("descr", String(200)),
    Column("price_cents", Integer, nullable=False),
    Column("cat_no", Integer, ForeignKey(cat.c.cat_no)),
    Column("qty_on_hand", Integer, nullable=False),
    Column("is_disc", SmallInteger, nullable=False),
    Column("created", TIMESTAMP, nullable=False),
    Column("chg", TIMESTAMP),
)
