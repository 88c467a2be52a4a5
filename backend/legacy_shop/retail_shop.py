"""Turns Online Retail lines into customers, products and carts, counting what is irregular."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from backend.legacy_shop.errors import LoadError
from backend.legacy_shop.local_time import TEXT_FORMAT, is_doubled, to_utc
from backend.legacy_shop.retail_dirt import Dirt, Rejected
from backend.legacy_shop.retail_source import parse_price, parse_quantity, parse_time, read_records, to_cents

T = TypeVar("T")

INTEGER_MAX = 2**31 - 1
INVOICE_LENGTH = CODE_LENGTH = 20
CUSTOMER_LENGTH = 40
NO_COUNTRY = frozenset({"", "Unspecified"})

_FRACTION = re.compile(r"([0-9]+)\.0+")


@dataclass(slots=True)
class Customer:
    since: str
    countries: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Product:
    number: int
    descriptions: Counter[str] = field(default_factory=Counter)
    priced_descriptions: Counter[str] = field(default_factory=Counter)
    prices: set[int] = field(default_factory=set)
    price_cents: int = 0
    priced_at: str = ""
    since: str = ""


@dataclass(slots=True)
class Cart:
    number: int
    state: str
    customer: str | None
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Price:
    cents: int
    dirt: tuple[Dirt, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """A time of the file: its place in `RetailShop.moments`, and the wall clock text to keep."""

    index: int
    text: str
    dirt: tuple[Dirt, ...]


class RetailShop:
    """Everything the file says, in the order it says it. Lines are held as five numbers each, 20 bytes."""

    def __init__(self) -> None:
        self.customers: dict[str, Customer] = {}
        self.products: dict[str, Product] = {}
        self.carts: dict[str, Cart] = {}
        self.moments: list[datetime] = []
        self.line_cart = array("i")
        self.line_product = array("i")
        self.line_quantity = array("i")
        self.line_cents = array("i")
        self.line_moment = array("i")
        self.dirt: Counter[Dirt] = Counter(dict.fromkeys(Dirt, 0))
        self.rejected: Counter[Rejected] = Counter(dict.fromkeys(Rejected, 0))
        self.lines_read = 0
        self._quantities: dict[str, int] = {}
        self._prices: dict[str, Price] = {}
        self._moments: dict[str, Moment] = {}
        self._customer_ids: dict[str, str] = {}
        self._last_invoice = ""
        self._seen_lines: set[int] = set()
        self._seen_codes: set[int] = set()

    @property
    def lines_loaded(self) -> int:
        return len(self.line_cart)

    @classmethod
    def read(cls, path: Path) -> RetailShop:
        """Read a whole file. Raises `LoadError` naming the line that cannot be understood."""
        shop = cls()
        for number, record in read_records(path):
            if not record:
                shop.dirt[Dirt.LINES_BLANK] += 1
                continue
            try:
                shop.add(record)
            except ValueError as error:
                raise LoadError(f"{path}, line {number}: {error}") from error
        return shop

    def add(self, record: list[str]) -> None:
        """Take in one line, values in the order of `FIELDS`. Raises ValueError when one is no number or no time."""
        invoice, code, description, _, _, _, customer_text, country = record
        self.lines_read += 1
        quantity = _remembered(self._quantities, record[3], parse=parse_quantity)
        price = _remembered(self._prices, record[5], parse=_price)
        moment = _remembered(self._moments, record[4], parse=self._moment)
        customer = _remembered(self._customer_ids, customer_text, parse=_customer_id)
        fields = (invoice.strip(), code.strip(), country.strip())
        reason = _rejection(fields, customer=customer, quantity=quantity, cents=price.cents)
        if reason is not None:
            self.rejected[reason] += 1
            return
        if fields != (invoice, code, country) or customer_text != customer_text.strip():
            self.dirt[Dirt.LINES_PADDED_FIELD] += 1
        invoice, code, country = fields
        self.dirt.update(price.dirt)
        self.dirt.update(moment.dirt)
        self._note_quantity(invoice, quantity=quantity)
        cart = self._cart(invoice, customer=customer, moment=moment)
        self._note_customer(customer, text=customer_text, country=country, moment=moment)
        product = self._product(code, moment=moment)
        self._note_description(product, text=description, cents=price.cents)
        self._note_price(product, cents=price.cents, moment=moment)
        self._note_repeats(record, cart=cart, product=product)
        self.line_cart.append(cart.number)
        self.line_product.append(product.number)
        self.line_quantity.append(quantity)
        self.line_cents.append(price.cents)
        self.line_moment.append(moment.index)

    def _moment(self, text: str) -> Moment:
        local = parse_time(text)
        kept = local.strftime(TEXT_FORMAT)
        self.moments.append(to_utc(local))
        dirt: list[Dirt] = []
        if kept != text.strip():
            dirt.append(Dirt.LINES_SKIPPED_HOUR)
        if is_doubled(local):
            dirt.append(Dirt.LINES_DOUBLED_HOUR)
        return Moment(index=len(self.moments) - 1, text=kept, dirt=tuple(dirt))

    def _cart(self, invoice: str, *, customer: str, moment: Moment) -> Cart:
        cart = self.carts.get(invoice)
        if cart is None:
            state = "X" if invoice[0].upper() in "CA" else "C"
            cart = Cart(len(self.carts) + 1, state, customer or None, moment.text, moment.text)
            self.carts[invoice] = cart
        elif invoice != self._last_invoice:
            self.dirt[Dirt.INVOICES_INTERRUPTED] += 1
        self._last_invoice = invoice
        if customer and cart.customer is None:
            cart.customer = customer
        elif customer and customer != cart.customer:
            self.dirt[Dirt.LINES_OF_ANOTHER_CUSTOMER] += 1
        cart.first = min(cart.first, moment.text)
        cart.last = max(cart.last, moment.text)
        return cart

    def _note_quantity(self, invoice: str, *, quantity: int) -> None:
        initial = invoice[0].upper()
        if initial == "C":
            self.dirt[Dirt.LINES_CANCELLATION] += 1
        elif initial == "A":
            self.dirt[Dirt.LINES_ADJUSTMENT] += 1
        if quantity < 0:
            self.dirt[Dirt.LINES_NEGATIVE_QUANTITY] += 1
            if initial != "C":
                self.dirt[Dirt.LINES_NEGATIVE_QUANTITY_NOT_CANCELLED] += 1
        elif quantity == 0:
            self.dirt[Dirt.LINES_ZERO_QUANTITY] += 1
        if abs(quantity) > 10_000:
            self.dirt[Dirt.LINES_QUANTITY_OVER_10000] += 1

    def _note_customer(self, customer: str, *, text: str, country: str, moment: Moment) -> None:
        if not customer:
            self.dirt[Dirt.LINES_WITHOUT_CUSTOMER] += 1
            if country not in NO_COUNTRY:
                self.dirt[Dirt.LINES_LOSING_COUNTRY] += 1
            return
        if customer != text.strip():
            self.dirt[Dirt.LINES_CUSTOMER_AS_FRACTION] += 1
        known = self.customers.get(customer)
        if known is None:
            known = self.customers[customer] = Customer(since=moment.text)
        known.since = min(known.since, moment.text)
        known.countries[country] += 1

    def _product(self, code: str, *, moment: Moment) -> Product:
        product = self.products.get(code)
        if product is None:
            product = self.products[code] = Product(number=len(self.products) + 1, since=moment.text)
        product.since = min(product.since, moment.text)
        return product

    def _note_description(self, product: Product, *, text: str, cents: int) -> None:
        kept = text.strip()
        if not kept:
            self.dirt[Dirt.LINES_WITHOUT_DESCRIPTION] += 1
            return
        if kept != text:
            self.dirt[Dirt.LINES_PADDED_DESCRIPTION] += 1
        if "  " in kept:
            self.dirt[Dirt.LINES_DOUBLE_SPACE_DESCRIPTION] += 1
        if not kept.isascii():
            self.dirt[Dirt.LINES_NON_ASCII_DESCRIPTION] += 1
        product.descriptions[kept] += 1
        if cents > 0:
            product.priced_descriptions[kept] += 1

    def _note_price(self, product: Product, *, cents: int, moment: Moment) -> None:
        if cents <= 0:
            return
        product.prices.add(cents)
        if moment.text >= product.priced_at:
            product.price_cents, product.priced_at = cents, moment.text

    def _note_repeats(self, record: list[str], *, cart: Cart, product: Product) -> None:
        """A hash stands for the whole line: two different ones with the same hash would miscount by one, no more."""
        whole = hash(tuple(record))
        if whole in self._seen_lines:
            self.dirt[Dirt.LINES_DUPLICATE] += 1
        self._seen_lines.add(whole)
        pair = cart.number << 32 | product.number
        if pair in self._seen_codes:
            self.dirt[Dirt.LINES_REPEATED_CODE] += 1
        self._seen_codes.add(pair)


def _remembered(known: dict[str, T], text: str, *, parse: Callable[[str], T]) -> T:
    """A file of a million lines has a few thousand different prices, times and quantities."""
    value = known.get(text)
    if value is None:
        value = known[text] = parse(text)
    return value


def _price(text: str) -> Price:
    pounds = parse_price(text)
    cents = to_cents(pounds)
    dirt: list[Dirt] = []
    if pounds == 0:
        dirt.append(Dirt.LINES_ZERO_PRICE)
    if pounds < 0:
        dirt.append(Dirt.LINES_NEGATIVE_PRICE)
    if abs(pounds) > 1000:
        dirt.append(Dirt.LINES_PRICE_OVER_1000)
    if Decimal(cents) != pounds * 100:
        dirt.append(Dirt.LINES_SUB_CENT_PRICE)
    return Price(cents=cents, dirt=tuple(dirt))


def _customer_id(text: str) -> str:
    """'17850.0' is what became of 17850 in a column of floating point numbers."""
    found = _FRACTION.fullmatch(text.strip())
    return found[1] if found else text.strip()


def _rejection(fields: tuple[str, str, str], *, customer: str, quantity: int, cents: int) -> Rejected | None:
    invoice, code, _ = fields
    if not invoice:
        return Rejected.NO_INVOICE
    if not code:
        return Rejected.NO_STOCK_CODE
    if len(invoice) > INVOICE_LENGTH or len(code) > CODE_LENGTH or len(customer) > CUSTOMER_LENGTH:
        return Rejected.KEY_TOO_LONG
    if abs(quantity) > INTEGER_MAX:
        return Rejected.QUANTITY_OUT_OF_RANGE
    if abs(cents) > INTEGER_MAX:
        return Rejected.PRICE_OUT_OF_RANGE
    return None
