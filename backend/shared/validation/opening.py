"""Opens keys whose totals differ: cut into parts first, then key by key, where the parts differ.

Both steps run inside the databases. What comes over the wire is the totals of some hundred parts, and the keys of those that
differ, a bounded number at a time: never a whole chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.shared.domain.mapping import decode_key, encode_key
from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.key_sql import KeyRange, also
from backend.shared.validation.relation import Relation, Selection, TablePair
from backend.shared.validation.sides import Sides, both
from backend.shared.validation.walk import Totals

ROWS_PER_PART = 256
FEWEST_PARTS = 16
MOST_PARTS = 8192
LISTED_AT_ONCE = 50_000
"""Rows of both sides whose keys are listed in one go, unless one part alone has more."""
_WIDEST_SPAN = 2**62
_GAPS = 16
"""Numbers per row up to which the bounds of a range do to cut it; beyond, it is asked what is in it."""

NONE = Totals()
Parts = dict[int, Totals]


class Partition(Protocol):
    """A way to cut keys into numbered parts."""

    def part(self, relation: Relation, first: int) -> str:
        """SQL for the number of the part that a row of `relation` is in, its parameters numbered from `first`."""
        ...

    @property
    def parameters(self) -> tuple[int, ...]:
        """Parameters of `part`: as such, so that a statement is parsed once and not for each chunk."""
        ...

    def hull(self, keys: KeyRange, parts: Sequence[int]) -> KeyRange:
        """As little of `keys` as an index can tell that `parts` are in."""
        ...


@dataclass(frozen=True, kw_only=True)
class ByHash:
    """Parts by the hash of the key, as many as `count` (a power of two): whatever the key is, they are alike in size."""

    count: int

    def part(self, relation: Relation, _first: int) -> str:
        """See `Partition`."""
        return relation.bucket(self.count)

    @property
    def parameters(self) -> tuple[int, ...]:
        """See `Partition`."""
        return ()

    def hull(self, keys: KeyRange, _parts: Sequence[int]) -> KeyRange:
        """See `Partition`."""
        return keys


@dataclass(frozen=True, kw_only=True)
class BySpan:
    """Parts of `width` following whole numbers each: to list some, an index leads straight to them."""

    low: int
    width: int

    def part(self, relation: Relation, first: int) -> str:
        """See `Partition`."""
        return f"((q.{relation.key[0].name}::bigint - ${first}::bigint) / ${first + 1}::bigint)"

    @property
    def parameters(self) -> tuple[int, ...]:
        """See `Partition`."""
        return self.low, self.width

    def hull(self, keys: KeyRange, parts: Sequence[int]) -> KeyRange:
        """See `Partition`."""
        lower, upper = self.low + min(parts) * self.width - 1, self.low + (max(parts) + 1) * self.width - 1
        if keys.lower is not None:
            lower = max(lower, *decode_key(keys.lower))
        if keys.upper is not None:
            upper = min(upper, *decode_key(keys.upper))
        return KeyRange(lower=encode_key((lower,)), upper=encode_key((upper,)))


def part_count(rows: int) -> int:
    """In how many parts to cut `rows` rows: a power of two."""
    wanted = max(FEWEST_PARTS, min(MOST_PARTS, rows // ROWS_PER_PART))
    return 1 << (wanted - 1).bit_length()


async def part_totals(
    sides: Sides, table: TablePair, keys: Selection, partition: Partition
) -> tuple[Parts, Parts]:
    """What source and target have in each part that is not empty."""

    async def ask(side: Side, relation: Relation) -> Parts:
        condition, parameters = keys.of(relation)
        statement = relation.parts(partition.part(relation, len(parameters) + 1), condition)
        rows = await sides.scan(side, statement, *parameters, *partition.parameters)
        return {row["b"]: Totals(rows=row["n"], hashes=row["h"]) for row in rows}

    direction = sides.direction
    source, target = await both(ask(direction.source, table.source), ask(direction.target, table.target))
    return source, target


def differing(source: Parts, target: Parts) -> list[int]:
    """Parts that are not the same on both sides, in order."""
    return sorted(n for n in source.keys() | target.keys() if source.get(n) != target.get(n))


def portions(parts: Iterable[int], *sides: Parts) -> list[list[int]]:
    """`parts` in portions whose keys may be listed in one go; `sides` say what is in them."""
    found: list[list[int]] = []
    room = 0
    for part in parts:
        rows = sum(side.get(part, NONE).rows for side in sides)
        if not found or rows > room:
            found.append([])
            room = LISTED_AT_ONCE
        found[-1].append(part)
        room -= rows
    return found


async def listed(
    sides: Sides, table: TablePair, keys: KeyRange, partition: Partition, *, parts: list[int]
) -> set[str]:
    """Keys in `parts` whose rows differ, or that are not as often on one side as on the other."""
    hull = partition.hull(keys, parts)

    async def ask(side: Side, relation: Relation) -> list[tuple[str, int]]:
        condition, parameters = hull.of(relation)
        number = len(parameters) + 1
        chosen = f"{partition.part(relation, number + 1)} = ANY (${number}::bigint[])"
        statement = relation.key_hashes(also(condition, chosen))
        rows = await sides.scan(side, statement, *parameters, parts, *partition.parameters)
        return [(row["k"], row["h"]) for row in rows]

    direction = sides.direction
    ours, theirs = await both(ask(direction.source, table.source), ask(direction.target, table.target))
    return unpaired(ours, theirs)


def unpaired(source: Iterable[tuple[str, int]], target: Iterable[tuple[str, int]]) -> set[str]:
    """Keys with a hash that is not as often on one side as on the other."""
    ours, theirs = Counter(source), Counter(target)
    return {key for key, _ in [*(ours - theirs), *(theirs - ours)]}


async def opened(
    sides: Sides, table: TablePair, keys: KeyRange, *, rows: int
) -> AsyncGenerator[set[str], None]:
    """Keys of a range whose rows differ, some at a time. `rows` is how many the fuller side has in it, about.

    Raises `UnreadableRowError` if a row of the source cannot be read.
    """
    partition = await _partition(sides, table, keys, rows=rows)
    source, target = await part_totals(sides, table, keys, partition)
    for parts in portions(differing(source, target), source, target):
        fullest = max(source.get(parts[0], NONE).rows, target.get(parts[0], NONE).rows)
        if isinstance(partition, BySpan) and partition.width > 1 and fullest > LISTED_AT_ONCE:
            # Numbers that lie far apart and close together by turns: this part is cut again.
            async for found in opened(sides, table, partition.hull(keys, parts), rows=fullest):
                yield found
        else:
            yield await listed(sides, table, keys, partition, parts=parts)


async def _partition(sides: Sides, table: TablePair, keys: KeyRange, *, rows: int) -> Partition:
    count = part_count(rows)
    if not table.source.is_numbered:
        return ByHash(count=count)
    span = _span_between(keys, most=rows * _GAPS)
    if span is None:
        span = await span_of(sides, table, keys)
    if span is None or span[1] - span[0] >= _WIDEST_SPAN:
        return ByHash(count=count)
    return BySpan(low=span[0], width=(span[1] - span[0]) // count + 1)


def _span_between(keys: KeyRange, *, most: int) -> tuple[int, int] | None:
    """The numbers that a range has room for, if they are not many more than `most`."""
    if keys.lower is None or keys.upper is None:
        return None
    (lower,), (upper,) = decode_key(keys.lower), decode_key(keys.upper)
    return (lower + 1, upper) if upper - lower <= most else None


async def span_of(sides: Sides, table: TablePair, keys: KeyRange) -> tuple[int, int] | None:
    """The lowest and the highest key of both sides, which are whole numbers; None if there is none."""

    async def ask(side: Side, relation: Relation) -> list[int]:
        condition, parameters = keys.of(relation)
        (row,) = await sides.scan(side, relation.extremes(condition), *parameters)
        return [value for value in (row["low"], row["high"]) if value is not None]

    direction = sides.direction
    ours, theirs = await both(ask(direction.source, table.source), ask(direction.target, table.target))
    found = [*ours, *theirs]
    return (min(found), max(found)) if found else None
