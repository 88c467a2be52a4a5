"""The ledger: what was acknowledged, and what must therefore be found on both sides in the end.

Every field of a row is a register that several may write at once. Whoever writes knows when it began and when it was
told of the success, and no more; so in the end a register may hold what any write left there that can have been the last
one: any but those that were acknowledged before another, acknowledged one began. A write whose outcome nobody was told
may have happened or not. That is the condition of linearisability (Herlihy and Wing, 1990) for the last read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final

from backend.shared.domain.phases import Side


class Unknown(Enum):
    """Stands for a value that the writer could not know."""

    VALUE = "unknown"


UNKNOWN: Final = Unknown.VALUE
_IS_THERE = ""  # the register that says whether the row exists; no column is called so


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of an entity, in the shape of one side's tables, named by the values of some of that shape's columns."""

    service: str
    entity: str
    shape: Side
    columns: tuple[str, ...]
    values: tuple[int | str, ...]

    def __str__(self) -> str:
        named = ", ".join(f"{name}={value}" for name, value in zip(self.columns, self.values, strict=True))
        return f"{self.entity} {named}"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a write does to one row: `fields` get these values, or the row goes."""

    row: Row
    fields: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class Write:
    """One operation of a client. Times are seconds of the machine's clock; without `acknowledged_at` it is in doubt."""

    source: str
    operation: str
    started_at: float
    acknowledged_at: float | None
    effects: tuple[Effect, ...]

    @property
    def is_acknowledged(self) -> bool:
        """Whether its client was told that it had succeeded."""
        return self.acknowledged_at is not None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """An acknowledged write that a side does not show, nor one that can have come after it."""

    write: Write
    side: Side
    row: Row
    column: str | None
    """None: the row itself is missing, or should be."""
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; without values of the row."""
        return {
            "source": self.write.source,
            "operation": self.write.operation,
            "acknowledged_at": self.write.acknowledged_at,
            "side": self.side.value,
            "row": str(self.row),
            "column": self.column,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class _Entry:
    write: Write
    value: Any


class Ledger:
    """Notes writes, and compares rows as they were found with what they must be."""

    def __init__(self) -> None:
        self.acknowledged_count = 0
        self.in_doubt_count = 0
        self.by_source: dict[str, int] = {}
        self._rows: dict[Row, dict[str, list[_Entry]]] = {}

    def note(self, write: Write) -> None:
        """Note a write that was acknowledged, or that is in doubt. One with no effect at all counts, too."""
        if write.is_acknowledged:
            self.acknowledged_count += 1
            self.by_source[write.source] = self.by_source.get(write.source, 0) + 1
        else:
            self.in_doubt_count += 1
        for effect in write.effects:
            registers = self._rows.setdefault(effect.row, {})
            for name, value in {**effect.fields, _IS_THERE: not effect.deleted}.items():
                _enter(registers.setdefault(name, []), _Entry(write, value))

    @property
    def rows(self) -> Iterable[Row]:
        """All rows that are told of."""
        return self._rows.keys()

    def compare(self, found: Mapping[Row, Mapping[str, Any] | None], *, side: Side) -> list[Lost]:
        """The acknowledged writes that `found`, the rows of `side` (None: no such row), does not bear out.

        A column that a found row does not have is not compared. A row that is not in `found` counts as missing.
        """
        lost: list[Lost] = []
        for row, registers in self._rows.items():
            lost += _lost_of_row(row, registers, found.get(row), side)
        return lost


def _enter(entries: list[_Entry], new: _Entry) -> None:
    """Add to a register, and forget what cannot be the last write any more."""
    kept = [entry for entry in entries if entry.write is not new.write]
    kept.append(new)
    latest = max((entry.write.started_at for entry in kept if entry.write.is_acknowledged), default=None)
    entries[:] = [entry for entry in kept if latest is None or _can_be_last(entry.write, latest)]


def _can_be_last(write: Write, latest_start: float) -> bool:
    end = write.acknowledged_at
    return end is None or end > latest_start or write.started_at == latest_start


def _lost_of_row(
    row: Row, registers: Mapping[str, list[_Entry]], found: Mapping[str, Any] | None, side: Side
) -> list[Lost]:
    is_there = found is not None
    told = _verdict(registers[_IS_THERE], is_there)
    if told is not None:
        reason = "the row is there, though it was deleted" if is_there else "the row is missing"
        return [Lost(write=told, side=side, row=row, column=None, reason=reason)]
    lost = []
    for name, entries in registers.items():
        if found is None or name == _IS_THERE or name not in found:
            continue
        told = _verdict(entries, found[name])
        if told is not None:
            lost.append(Lost(write=told, side=side, row=row, column=name, reason="another value is there"))
    return lost


def _verdict(entries: list[_Entry], found: Any) -> Write | None:
    """The acknowledged write that `found` belies; None if some write that can have been the last left it."""
    acknowledged = [entry.write for entry in entries if entry.write.is_acknowledged]
    if not acknowledged or any(entry.value is UNKNOWN or same(entry.value, found) for entry in entries):
        return None
    return max(acknowledged, key=lambda write: write.acknowledged_at or 0.0)


def same(expected: object, found: object) -> bool:
    """Whether two values are one: amounts compare as numbers, whichever way they are written; all else exactly."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, Decimal) or isinstance(found, Decimal):
        try:
            return Decimal(str(expected)) == Decimal(str(found))
        except InvalidOperation:
            return False
    return type(expected) is type(found) and expected == found
