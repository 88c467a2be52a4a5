"""Whether a server sorts texts by their bytes of its own accord: then a range of them means the same on every server.

And then its index serves such ranges. Texts under a linguistic collation it sorts by rules that differ between versions.
"""

from __future__ import annotations

from collections.abc import Iterable

# All locales of the provider "builtin" (b) sort by code point, which in UTF-8 is the order of the bytes. `to_jsonb`, since
# what a database says of its collation has other column names in each version.
_BY_BYTES = (
    "CASE WHEN c.collprovider = 'd' THEN coalesce(d.d ->> 'datlocprovider', 'c') = 'b' "
    "OR coalesce(d.d ->> 'datlocprovider', 'c') = 'c' AND d.d ->> 'datcollate' IN ('C', 'POSIX') "
    "ELSE c.collprovider = 'b' OR c.collprovider = 'c' AND c.collcollate IN ('C', 'POSIX') END"
)


def sorts_by_bytes(query: str, columns: Iterable[str]) -> str:
    """A query of one value: whether all `columns` that `query` yields, one at least, are sorted by their bytes.

    It reads no row. A column without collation is no text, and how it would sort as one is not known: it is not.
    """
    collations = ", ".join(
        f"(SELECT pg_collation_for(q.{name}) FROM pg_type AS t WHERE t.oid = pg_typeof(q.{name}) AND t.typcollation <> 0)"
        for name in columns
    )
    return (
        f"SELECT bool_and(coalesce({_BY_BYTES}, false)) AS by_bytes "
        f"FROM (SELECT 1) AS one LEFT JOIN ({query}) AS q ON false CROSS JOIN unnest(ARRAY[{collations}]) AS k(name) "
        "LEFT JOIN pg_collation AS c ON c.oid = k.name::regcollation "
        "CROSS JOIN (SELECT to_jsonb(x) AS d FROM pg_database AS x WHERE x.datname = current_database()) AS d"
    )
