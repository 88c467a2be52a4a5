"""What both sides hold, in one shape, to compare."""

from __future__ import annotations

import asyncpg

from backend.shared.testing.clusters import Databases

_LEGACY = """
SELECT f.folk_no, f.mail, f.nm, (f.cents / 100.0)::numeric(12,2) AS credit, f.born::date AS born, e.city,
       (SELECT array_agg((n.note_no, n.body)::text ORDER BY n.note_no) FROM notes AS n WHERE n.folk_no = f.folk_no) AS notes
  FROM folk AS f LEFT JOIN folk_extra AS e USING (folk_no) ORDER BY 1"""
_NEW = """
SELECT p.id, p.email, p.name, p.credit, p.born, i.city,
       (SELECT array_agg((n.id, n.body)::text ORDER BY n.id) FROM notes AS n WHERE n.person_id = p.id) AS notes
  FROM people AS p LEFT JOIN profiles AS i ON i.person_id = p.id ORDER BY 1"""


async def _rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def both_sides(databases: Databases) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """All people with their notes on legacy, and on new."""
    return await _rows(databases.legacy_url, _LEGACY), await _rows(databases.new_url, _NEW)


async def assert_equal_sides(databases: Databases) -> list[tuple[object, ...]]:
    """Both sides hold the same; answers what."""
    legacy, new = await both_sides(databases)
    assert new == legacy
    return legacy
