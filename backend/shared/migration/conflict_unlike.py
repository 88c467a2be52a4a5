"""Puts a foreign write into force on the authoritative side, or takes one back there, where one of the sides holds documents.

State travels in the shape of the tables, whichever side it comes from, so what a conflict has kept is laid on top of the
authoritative state as rows: the columns that a row's images or a FAILED key's two states differ in. Of a document that
another program has written nobody knows what it was before: that counts as a whole. What the document's shape makes of the
outcome is what would be carried; where that undoes what is to be kept, nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import BY_KEY, Conflict, ConflictOperation
from backend.shared.migration.conflict_authority import TRIES, ConflictAuthority
from backend.shared.migration.conflict_images import RowImages, images_of
from backend.shared.migration.conflict_states import (
    Rows,
    Wanted,
    cannot_say,
    changes,
    on_top,
    rows_of,
    same_columns,
    shown,
    unsaid,
    with_rows,
)
from backend.shared.migration.repair_looks import Looks
from backend.shared.migration.repair_results import FieldChange
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error, to_side_error
from backend.shared.stores.mongo.errors import UnfitRowsError
from backend.shared.stores.mongo.shapes import batch_of, documents_of
from backend.shared.stores.protocol import StateBatch, UnfitKeysError
from backend.shared.stores.side import Connection, StoreKind
from backend.shared.stores.state_images import differing
from backend.shared.validation.recheck import Look


class UnlikeConflictWriter:
    """Writes the authoritative side for one conflict. `side` is the authoritative one, `epoch` the one believed to hold."""

    def __init__(self, runtime: ServiceRuntime, *, side: Side, epoch: int, by: str, looks: Looks) -> None:
        self._runtime = runtime
        self._side = side
        self._looks = looks
        self._back = Direction.towards(side)
        self._state = runtime.stores[side].state
        self._authority = ConflictAuthority(runtime, side=side, epoch=epoch, by=by)

    def takes_back(self, conflict: Conflict) -> bool:
        """Whether what a foreign program did is known, so that it can be undone: of documents only what it has made is."""
        holds_rows = self._runtime.stores[conflict.side].kind is StoreKind.POSTGRES
        return holds_rows and conflict.has_images and conflict.operation not in BY_KEY

    async def put(self, conflict: Conflict) -> None:
        """Bring what the side of the conflict holds into force. May be repeated; see `put_here`."""
        await self.put_here(conflict, keep=conflict.side)

    async def put_here(self, conflict: Conflict, *, keep: Side) -> None:
        """Make the authoritative state of the key what side `keep` says.

        Raises `ConflictError` if the mapping cannot say it, or the row was written again since, `SideError` if a side
        refuses it or does not answer, and `FencedError` if the authority has moved.
        """
        for _ in range(TRIES):
            trial = await self._tried(conflict, keep)
            await self._runtime.hook("conflict_tried")
            if trial is not None and await self._authority.write(
                conflict, partial(self._write, trial), keep=keep
            ):
                await self._runtime.hook("conflict_written")
                return
        raise ConflictError("the key is written too often to come in between; try again")

    async def trial(self, conflict: Conflict) -> Wanted:
        """What `put` would do. Changes nothing; raises as it does."""
        now = await self._stored(self._side, conflict)
        return self._checked(now, await self._put_on(now, conflict))

    async def _tried(self, conflict: Conflict, keep: Side) -> Wanted | None:
        """What to write; None while a change of the key is on its way to the side whose state is to be kept."""
        if keep is conflict.side:
            return await self.trial(conflict)
        now = await self._stored(self._side, conflict)
        if self.takes_back(conflict):
            return self._checked(now, self._taken_back(now, conflict))
        (look,) = (await self._looks.once([conflict.identity])).values()
        if not look.settled:
            return None
        return self._checked(now, await self._stored(self._side.other, conflict))

    async def _stored(self, side: Side, conflict: Conflict) -> StateBatch:
        store, entity = self._runtime.stores[side], self._entity(conflict)
        try:
            async with store.reading() as connection:
                return await store.state.read_stored(connection, entity, self._back, keys=[conflict.key])
        except UnfitKeysError as error:
            raise cannot_say(side.other, str(error)) from error
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, side, entity=entity.name, key=conflict.key) from error

    def _entity(self, conflict: Conflict) -> EntityMapping:
        return self._runtime.catalog[conflict.entity]

    # What is to hold --------------------------------------------------------------------------------------------------

    async def _put_on(self, now: StateBatch, conflict: Conflict) -> StateBatch:
        """`now` with what the conflict has kept of its own side; where it has kept nothing, what stands there now."""
        if self.takes_back(conflict):
            images = self._images(conflict)
            return _with_row(now, images, images.after, only=images.changed)
        try:
            if conflict.operation is ConflictOperation.FAILED:
                # What this side had changed is where it differed from what the other one held then.
                here, there = (self._kept(conflict, side) for side in (conflict.side, conflict.side.other))
                return on_top(now, without=there, with_it=here)
            if self._runtime.stores[conflict.side].kind is StoreKind.MONGO:
                return self._kept(conflict, conflict.side)
        except UnfitKeysError as error:
            raise cannot_say(self._side, str(error)) from error
        return await self._stored(conflict.side, conflict)

    def _kept(self, conflict: Conflict, side: Side) -> StateBatch:
        text = conflict.after if side is conflict.side else conflict.before
        if text is not None and conflict.operation not in BY_KEY:
            text = f"{{{json.dumps(conflict.source_table)}: [{text}]}}"
        return self._runtime.stores[side].state.state_of(self._entity(conflict), key=conflict.key, rows=text)

    def _taken_back(self, now: StateBatch, conflict: Conflict) -> StateBatch:
        images = self._images(conflict)
        left = _with_row(now, images, images.after, only=images.changed)
        if changes(now, left):
            raise ConflictError("the row has been written again since: that write stands")
        return _with_row(now, images, images.before, only=images.changed)

    def _images(self, conflict: Conflict) -> RowImages:
        images = images_of(self._runtime.catalog, conflict)
        if images is None:
            raise ConflictError(f"the table {conflict.source_table} is no longer mapped")
        return images

    def _checked(self, now: StateBatch, wanted: StateBatch) -> Wanted:
        """Raise `ConflictError` unless the shape can say what is wanted, and would carry it on."""
        try:
            documents = documents_of(wanted, frozenset(wanted.keys))
            carried = batch_of(
                wanted.entity,
                now.direction,
                documents.values(),
                keys=wanted.keys,
                position=wanted.position,
            )
        except (UnfitRowsError, UnfitKeysError) as error:
            raise cannot_say(self._side, describe(error)) from error
        found = Wanted(now=now, wanted=wanted)
        self._check_said(found, carried)
        return found

    def _check_said(self, trial: Wanted, after: StateBatch) -> None:
        if fields := unsaid([name for name, _ in changes(trial.now, trial.wanted)], trial.now, after):
            raise cannot_say(self._side, fields)

    # The authoritative side -------------------------------------------------------------------------------------------

    async def _write(self, trial: Wanted, connection: Connection) -> bool:
        """In a transaction. False if the key was written since the trial."""
        entity, keys = trial.now.entity, list(trial.now.keys)
        now = await self._state.read_stored(connection, entity, self._back, keys=keys)
        await self._runtime.hook("conflict_compared")
        if differing(now, trial.now):
            return False
        await self._state.write(connection, [trial.wanted], {entity.name: frozenset(keys)})
        # What the database has made of it is what is carried.
        self._check_said(trial, await self._state.read_stored(connection, entity, self._back, keys=keys))
        return True

    def carry(self, look: Look, conflict: Conflict, *, show_values: bool) -> tuple[FieldChange, ...]:
        """The fields that one more carry of the key would change on the other side."""
        if look.source is None:
            return ()
        before, after = look.target.fields, look.source.fields
        return tuple(
            shown(
                self._entity(conflict), name, _told(before, name), _told(after, name), show_values=show_values
            )
            for name in dict.fromkeys([*before, *after])
            if (name in before, before.get(name)) != (name in after, after.get(name))
        )


def _told(fields: Mapping[str, str | None], name: str) -> str | None:
    value = fields.get(name)
    return "NULL" if name in fields and value is None else value


def _with_row(
    now: StateBatch, images: RowImages, image: Mapping[str, Any] | None, *, only: tuple[str, ...]
) -> StateBatch:
    """`now` with one row as in `image`: gone, or changed in the columns `only`, or put there."""
    one = images.after or images.before or {}
    tables: list[Rows] = []
    for number, projection in enumerate(now.entity.projections(now.direction)):
        rows = rows_of(now, number)
        if projection.table is images.table:
            same = [same_columns(projection, row, one, images.row_names) for row in rows]
            left = [row for row, is_it in zip(rows, same, strict=True) if not is_it]
            if image is not None:
                known = {
                    column.name: image[column.name] for column in projection.columns if column.name in image
                }
                found = [row for row, is_it in zip(rows, same, strict=True) if is_it]
                put = [row | {name: known[name] for name in only if name in known} for row in found] or [
                    known
                ]
                left += put
            rows = left
        tables.append(rows)
    return with_rows(now, tables)
