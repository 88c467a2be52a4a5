"""Reads the Online Retail CSV, plain or gzipped, and says where it is broken."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import BinaryIO, cast

from backend.legacy_shop.connection import one_line
from backend.legacy_shop.errors import LoadError
from backend.legacy_shop.local_time import TEXT_FORMAT, is_skipped

FIELDS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)

_GZIP_MAGIC = b"\x1f\x8b"
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")


def shown(text: str) -> str:
    """A value of the file, short enough for one line."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def parse_quantity(text: str) -> int:
    """Pieces; below zero on returns. Raises ValueError."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"Quantity {shown(text)} is not a whole number")
    return int(text)


def parse_price(text: str) -> Decimal:
    """Pounds, as written. Raises ValueError."""
    if not _DECIMAL.fullmatch(text.strip()):
        raise ValueError(f"UnitPrice {shown(text)} is not a number")
    return Decimal(text.strip())


def to_cents(price: Decimal) -> int:
    """Whole cents, half a cent going away from zero, as PostgreSQL's `round` has it."""
    return int((price * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def parse_time(text: str) -> datetime:
    """Wall clock time; one from the hour left out in spring is an hour later. Raises ValueError."""
    try:
        if not _TIME.fullmatch(text.strip()):
            raise ValueError  # noqa: TRY301 - the same answer as for a 30th of February
        local = datetime.strptime(text.strip(), TEXT_FORMAT).replace(tzinfo=None)  # noqa: DTZ007 - it is local
    except ValueError:
        raise ValueError(f"InvoiceDate {shown(text)} is not a time like 2010-12-01 08:26:00") from None
    return local + timedelta(hours=1) if is_skipped(local) else local


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and the values of `FIELDS`, record by record; a blank line gives an empty list.

    Columns may stand in any order, others beside them are ignored. Raises `LoadError` that names the line.
    """
    try:
        with _opened(path) as raw:
            yield from _records(path, raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LoadError(f"{path}: the gzip file is damaged or cut short: {one_line(error)}") from error
    except OSError as error:
        raise LoadError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error


def _opened(path: Path) -> BinaryIO:
    """The file, unzipped if need be; what it is, its first bytes say, not its name."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP_MAGIC
    return cast("BinaryIO", gzip.open(path, "rb") if zipped else path.open("rb"))


def _records(path: Path, raw: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_decoded(path, raw), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise LoadError(f"{path}: the file is empty")
        places = _places(path, header)
        straight = places == list(range(len(header)))
        for record in reader:
            if record and len(record) != len(header):
                raise LoadError(
                    f"{path}, line {reader.line_num}: {len(record)} values, but the header names {len(header)}"
                )
            yield reader.line_num, record if straight or not record else [record[place] for place in places]
    except csv.Error as error:
        raise LoadError(f"{path}, line {reader.line_num}: {error}") from error


def _decoded(path: Path, raw: BinaryIO) -> Iterator[str]:
    """Line by line, so that the line with a wrong byte can be named."""
    for number, line in enumerate(raw, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise LoadError(f"{path}, line {number}: not UTF-8 (byte 0x{wrong:02x})") from error
        if "\0" in text:
            raise LoadError(f"{path}, line {number}: holds a NUL character")
        yield text


def _places(path: Path, header: list[str]) -> list[int]:
    names = [name.strip() for name in header]
    missing = [name for name in FIELDS if name not in names]
    if missing:
        raise LoadError(f"{path}, line 1: no column {', '.join(missing)}")
    twice = [name for name in FIELDS if names.count(name) > 1]
    if twice:
        raise LoadError(f"{path}, line 1: column {', '.join(twice)} stands there twice")
    return [names.index(name) for name in FIELDS]
