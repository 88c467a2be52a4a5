"""The kinds of dirt in the Online Retail lines, as the load report counts them.

What is done about each, and why, stands in `docs/legacy-shop.md`.
"""

from __future__ import annotations

from enum import StrEnum


class Dirt(StrEnum):
    """Irregular, and loaded all the same. The first word says what is counted."""

    LINES_WITHOUT_CUSTOMER = "lines_without_customer"
    LINES_LOSING_COUNTRY = "lines_losing_country"
    LINES_CUSTOMER_AS_FRACTION = "lines_customer_as_fraction"
    LINES_OF_ANOTHER_CUSTOMER = "lines_of_another_customer"
    LINES_CANCELLATION = "lines_cancellation"
    LINES_ADJUSTMENT = "lines_adjustment"
    LINES_NEGATIVE_QUANTITY = "lines_negative_quantity"
    LINES_NEGATIVE_QUANTITY_NOT_CANCELLED = "lines_negative_quantity_not_cancelled"
    LINES_ZERO_QUANTITY = "lines_zero_quantity"
    LINES_QUANTITY_OVER_10000 = "lines_quantity_over_10000"
    LINES_ZERO_PRICE = "lines_zero_price"
    LINES_NEGATIVE_PRICE = "lines_negative_price"
    LINES_PRICE_OVER_1000 = "lines_price_over_1000"
    LINES_SUB_CENT_PRICE = "lines_sub_cent_price"
    LINES_WITHOUT_DESCRIPTION = "lines_without_description"
    LINES_PADDED_DESCRIPTION = "lines_padded_description"
    LINES_DOUBLE_SPACE_DESCRIPTION = "lines_double_space_description"
    LINES_NON_ASCII_DESCRIPTION = "lines_non_ascii_description"
    LINES_OTHER_DESCRIPTION = "lines_other_description"
    LINES_PADDED_FIELD = "lines_padded_field"
    LINES_REPEATED_CODE = "lines_repeated_code"
    LINES_DUPLICATE = "lines_duplicate"
    LINES_SKIPPED_HOUR = "lines_skipped_hour"
    LINES_DOUBLED_HOUR = "lines_doubled_hour"
    LINES_BLANK = "lines_blank"
    INVOICES_CANCELLED = "invoices_cancelled"
    INVOICES_SEVERAL_TIMES = "invoices_several_times"
    INVOICES_INTERRUPTED = "invoices_interrupted"
    CUSTOMERS_SEVERAL_COUNTRIES = "customers_several_countries"
    CUSTOMERS_WITHOUT_COUNTRY = "customers_without_country"
    CODES_SEVERAL_DESCRIPTIONS = "codes_several_descriptions"
    CODES_WITHOUT_DESCRIPTION = "codes_without_description"
    CODES_DESCRIBED_BY_NOTE = "codes_described_by_note"
    CODES_SHARED_DESCRIPTION = "codes_shared_description"
    CODES_TEXT_CUT = "codes_text_cut"
    CODES_SEVERAL_PRICES = "codes_several_prices"
    CODES_NEVER_PRICED = "codes_never_priced"
    CODES_CASE_TWINS = "codes_case_twins"
    CODES_BOOKKEEPING = "codes_bookkeeping"


class Rejected(StrEnum):
    """Lines that no row of the legacy tables can hold."""

    NO_INVOICE = "no_invoice"
    NO_STOCK_CODE = "no_stock_code"
    KEY_TOO_LONG = "key_too_long"
    QUANTITY_OUT_OF_RANGE = "quantity_out_of_range"
    PRICE_OUT_OF_RANGE = "price_out_of_range"
