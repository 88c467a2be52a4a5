"""What an operator does about documents that fit no table: list them, mend each through the engine, have them tried again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from bson import ObjectId

from backend.demo.errors import StepError
from backend.demo.ledger import Effect, Ledger, Write
from backend.demo.operator import Operator
from backend.legacy_documents import Misfit
from backend.shared.dual_write_manager import DualWriteManager

from .audit import thing
from .misfits import Listing, Name, Remedy, document_name, remedy_of, update_of
from .stack import SERVICE

SOURCE = "operator"
LIST_SECONDS = 60.0
CLEAR_SECONDS = 60.0
AT_ONCE = 6
_LOOK_SECONDS = 1.0
_MOST = 10_000


class Mender:
    """Lists, mends, tries again. `listing` is what was found at last.

    Writes go through `manager`, each as one unit of work that the engine captures, and into the ledger.
    """

    def __init__(
        self,
        manager: DualWriteManager,
        operator: Operator,
        ledger: Ledger,
        *,
        misfits: Sequence[Misfit],
        say: Callable[[str], None],
    ) -> None:
        self._manager = manager
        self._operator = operator
        self._ledger = ledger
        self._misfits = misfits
        self._say = say
        self.listing = Listing.of(misfits, {})
        self._keys: dict[Name, tuple[Any, ...]] = {}

    async def list_all(self) -> None:
        """Ask for the failures until every document that does not fit is among them, or time is over."""
        deadline = time.monotonic() + LIST_SECONDS
        while True:
            self.listing = Listing.of(self._misfits, await self._failures())
            if self.listing.is_exact or time.monotonic() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        found = len(self.listing.expected) - len(self.listing.unlisted)
        self._say(
            f"{found} of {len(self.listing.expected)} documents that fit no table are listed with their reasons, "
            f"and {len(self.listing.unexpected)} others"
        )

    async def mend_all(self, *, somebody: str) -> None:
        """Mend each, then have all tried again, and wait until no failure is open. Raises `StepError` if one stays."""
        keys = dict(self._keys)
        free = asyncio.Semaphore(AT_ONCE)

        async def mend(misfit: Misfit) -> None:
            key = keys.get((misfit.collection, str(misfit.id)), (str(misfit.id),))
            async with free:
                await self._mend(misfit, key=key, somebody=ObjectId(somebody))

        await asyncio.gather(*(mend(misfit) for misfit in self._misfits))
        told = await self._operator.run("retry", SERVICE)
        if told.code:
            raise StepError(f"`tandem retry {SERVICE}` failed: {told.message}")
        deadline = time.monotonic() + CLEAR_SECONDS
        while left := await self._failures():
            if time.monotonic() > deadline:
                (collection, name), reason = next(iter(sorted(left.items())))
                self._say(f"{len(left)} failures stay, such as {collection} {name}: {reason}")
                return
            await asyncio.sleep(_LOOK_SECONDS)
        self._say(f"{len(self._misfits)} documents are mended, and no failure is open")

    async def _failures(self) -> dict[Name, str]:
        told = await self._operator.run("failures", SERVICE, "--json", "--limit", str(_MOST))
        if told.code not in (0, 1):
            raise StepError(f"`tandem failures {SERVICE}` failed: {told.message}")
        found = [json.loads(line) for line in told.output.splitlines() if line.startswith("{")]
        self._keys = {
            (item["entity"], document_name(item["key"])): tuple(json.loads(item["key"])) for item in found
        }
        return {(item["entity"], document_name(item["key"])): item["error"] for item in found}

    async def _mend(self, misfit: Misfit, *, key: tuple[Any, ...], somebody: ObjectId) -> None:
        moved_to = ObjectId()

        async def unit(work: Any) -> None:
            documents, wanted = work.database[misfit.collection], {"_id": misfit.id}
            work.touch(misfit.collection, key)
            match remedy_of(misfit):
                case Remedy.DELETE:
                    await documents.delete_one(wanted, session=work.session)
                case Remedy.NEW_ID:
                    work.touch(misfit.collection, (str(moved_to),))
                    document = await documents.find_one(wanted, session=work.session)
                    if document is not None:
                        await documents.insert_one({**document, "_id": moved_to}, session=work.session)
                        await documents.delete_one(wanted, session=work.session)
                case _:
                    update = update_of(misfit, somebody=somebody)
                    await documents.update_one(wanted, update, session=work.session)

        began = time.time()
        (await self._manager.write("mend_document", unit)).unwrap()
        gone = remedy_of(misfit) in (Remedy.DELETE, Remedy.NEW_ID)
        effects = [Effect(row=thing(misfit.collection, str(misfit.id)), deleted=gone)]
        if remedy_of(misfit) is Remedy.NEW_ID:
            effects.append(Effect(row=thing(misfit.collection, str(moved_to))))
        self._ledger.note(
            Write(
                source=SOURCE,
                operation="mend_document",
                started_at=began,
                acknowledged_at=time.time(),
                effects=tuple(effects),
            )
        )
