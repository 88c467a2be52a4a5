from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from backend.legacy_shop import LoadError
from backend.legacy_shop.retail_categories import category_path, numbered_paths
from backend.legacy_shop.retail_shop import RetailShop
from backend.legacy_shop.retail_source import read_records, to_cents

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LINE = "536365,85123A,A MUG,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"


def written(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "shop.csv"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "the file is empty"),
        ((HEADER.replace("UnitPrice,", ""),), "line 1: no column UnitPrice"),
        ((HEADER + ",Country",), "line 1: column Country stands there twice"),
        ((HEADER, LINE, LINE + ",more"), "line 3: 9 values, but the header names 8"),
        ((HEADER, LINE, LINE.replace(",6,", ",six,")), "line 3: Quantity 'six' is not a whole number"),
        ((HEADER, LINE.replace(",6,", ",6.5,")), "line 2: Quantity '6.5' is not a whole number"),
        ((HEADER, LINE.replace(",6,", ",,")), "line 2: Quantity '' is not a whole number"),
        ((HEADER, LINE.replace("2.55", "NaN")), "line 2: UnitPrice 'NaN' is not a number"),
        ((HEADER, LINE.replace("2.55", "1e3")), "line 2: UnitPrice '1e3' is not a number"),
        ((HEADER, LINE.replace("2.55", "9" * 60)), f"line 2: UnitPrice '{'9' * 40}…' is not a number"),
        ((HEADER, LINE.replace("12-01", "13-01")), "line 2: InvoiceDate '2010-13-01 08:26:00' is not a time"),
        ((HEADER, LINE.replace("2010-12-01", "1/12/2010")), "line 2: InvoiceDate"),
        ((HEADER, LINE, b"1,2,GIFT VOUCHER \xa320,1,,,,"), "line 3: not UTF-8 (byte 0xa3)"),
        ((HEADER, LINE.replace("A MUG", "A\0MUG")), "line 2: holds a NUL character"),
        ((HEADER, LINE, LINE.replace("A MUG", '"A MUG')), "line 3: unexpected end of data"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(
    tmp_path: Path, lines: tuple[str | bytes, ...], said: str
) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(LoadError) as caught:
        RetailShop.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read: No such file or directory"):
        RetailShop.read(tmp_path / "none.csv")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read: Is a directory"):
        RetailShop.read(tmp_path)


def test_a_gzip_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *[LINE] * 5_000]).encode())[:-30])
    with pytest.raises(LoadError, match="damaged or cut short"):
        RetailShop.read(path)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv.gz"
    zipped = bytearray(gzip.compress("\n".join([HEADER, *[LINE] * 5_000]).encode()))
    zipped[len(zipped) // 2] ^= 0xFF
    path.write_bytes(zipped)
    with pytest.raises(LoadError):
        RetailShop.read(path)


def test_zipped_or_not_is_told_by_the_bytes_and_not_by_the_name(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "plain.gz", tmp_path / "zipped.csv"
    plain.write_text(f"{HEADER}\n{LINE}\n")
    zipped.write_bytes(gzip.compress(f"{HEADER}\n{LINE}\n".encode()))
    assert list(read_records(plain)) == list(read_records(zipped))


def test_columns_may_stand_in_any_order_among_others_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        b"\xef\xbb\xbfCountry,Note,CustomerID,UnitPrice,InvoiceDate,Quantity,Description,StockCode,InvoiceNo",
        "United Kingdom,x,17850.0,2.55,2010-12-01 08:26:00,6,A MUG,85123A,536365",
    )
    assert list(read_records(path)) == [(2, LINE.split(","))]


@pytest.mark.parametrize(
    ("price", "cents"),
    [("0.001", 0), ("0.005", 1), ("2.55", 255), ("-11062.06", -1_106_206), ("-0.005", -1), ("1.115", 112)],
)
def test_half_a_cent_goes_away_from_zero(price: str, cents: int) -> None:
    assert to_cents(Decimal(price)) == cents


def test_categories_come_from_the_words_of_the_description() -> None:
    assert category_path("22423", description="RED MUG, LARGE") == "Home/Kitchen/Mugs"
    assert category_path("22423", description="red MUG for Christmas") == "Home/Seasonal/Christmas"
    assert category_path("22423", description=None) == "Home/Unsorted"
    assert category_path("m", description="Manual") == "Bookkeeping"


def test_every_category_has_its_ancestors_before_it() -> None:
    numbers = numbered_paths(["Home/Kitchen/Mugs", "Home/Bags/Lunch", "Bookkeeping"])
    assert numbers.keys() == {
        *("Bookkeeping", "Home", "Home/Bags", "Home/Bags/Lunch", "Home/Kitchen", "Home/Kitchen/Mugs"),
    }
    assert sorted(numbers.values()) == list(range(1, 7))
    assert all(numbers[path.rpartition("/")[0]] < numbers[path] for path in numbers if "/" in path)
