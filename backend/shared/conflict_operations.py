"""What an operator asks of a manager about conflicts: which there are, and to settle one either way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.shared.domain.errors import NotFoundError
from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import Conflict
from backend.shared.migration.conflict_images import fields_of
from backend.shared.migration.conflicts import ConflictId, Conflicts, Settlement
from backend.shared.observability.admin_views import ChangedFieldView, ConflictView, SettlementView
from backend.shared.phase_operations import PhaseOperations


class ConflictOperations(PhaseOperations):
    """The part of `AdminOperations` that is about conflicts."""

    async def list_conflicts(
        self,
        *,
        limit: int,
        after_id: str | None = None,
        entity: str | None = None,
        show_values: bool = False,
        settled: bool = False,
    ) -> Sequence[ConflictView]:
        """Up to `limit` open or `settled` conflicts past the one named `after_id`: those of legacy, then those of new."""
        await self.start()
        if entity is not None and entity not in self.runtime.catalog:
            known = ", ".join(item.name for item in self.runtime.catalog.ordered)
            raise NotFoundError(f"there is no entity {entity!r}; there are: {known}")
        after = ConflictId.parse(after_id) if after_id is not None else None
        found = await Conflicts(self.runtime).page(
            after=(after.side, after.number) if after else None, limit=limit, entity=entity, settled=settled
        )
        return [self._conflict_view(conflict, show_values=show_values) for conflict in found]

    async def settle_conflict(
        self,
        conflict_id: str,
        *,
        keep: Side,
        by: str = "api",
        dry_run: bool = False,
        show_values: bool = False,
    ) -> SettlementView:
        """Make the state of side `keep` that of both sides, for the key of one conflict. May be repeated.

        Raises `NotFoundError` for one that does not exist, and `ConflictError` for one that was settled the other way or that
        somebody settles just now.
        """
        wanted = ConflictId.parse(conflict_id)
        await self.start()
        conflicts = Conflicts(self.runtime)
        if dry_run:
            return self._settlement_view(await conflicts.plan(wanted, keep=keep, show_values=show_values))
        return self._settlement_view(await conflicts.settle(wanted, keep=keep, by=by))

    async def settle_conflicts(
        self, *, keep: Side, by: str = "api", on_each: Callable[[SettlementView], None] = lambda _: None
    ) -> None:
        """Settle all that are open now; `on_each` gets each as it is done."""
        await self.start()
        await Conflicts(self.runtime).settle_all(
            keep=keep, by=by, on_each=lambda done: on_each(self._settlement_view(done))
        )

    def _conflict_view(self, conflict: Conflict, *, show_values: bool) -> ConflictView:
        fields = fields_of(self.runtime.catalog, conflict, show_values=show_values)
        return ConflictView(
            id=str(ConflictId(service=self.service, side=conflict.side, number=conflict.id)),
            service=self.service,
            side=conflict.side,
            entity=conflict.entity,
            key=conflict.key,
            operation=conflict.operation.value,
            table=conflict.source_table,
            fields=tuple(
                ChangedFieldView(field=item.field, before=item.before, after=item.after) for item in fields
            ),
            written_at=conflict.written_at,
            written_by=conflict.written_by,
            application=conflict.application,
            detail=conflict.detail,
            kept=conflict.kept,
            settled_by=conflict.settled_by,
        )

    def _settlement_view(self, done: Settlement) -> SettlementView:
        conflict = done.conflict
        return SettlementView(
            id=str(ConflictId(service=self.service, side=conflict.side, number=conflict.id)),
            service=self.service,
            entity=conflict.entity,
            key=conflict.key,
            keep=done.keep,
            settled=done.is_settled,
            outcome=done.outcome.value,
            detail=done.detail,
            fields=tuple(
                ChangedFieldView(field=item.field, before=item.before, after=item.after)
                for item in done.fields
            ),
        )
