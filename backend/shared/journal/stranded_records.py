"""Keys that were written on the secondary side alone, while the authoritative one was away (`DUAL_WRITE_AVAILABILITY=any`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

PARKED_EPOCH: Final = 2**62
"""The epoch of the guard of a stranded key: no carry is newer, so none writes over it."""


@dataclass(frozen=True, kw_only=True)
class StrandedKey:
    """A key, with what its side held of it before, as `state_images.image_of` writes it.

    `changed_at` is that of the last write there, by the clock of that server.
    """

    entity: str
    key: str
    before: str
    changed_at: datetime
    request_id: str | None

    @property
    def identity(self) -> tuple[str, str]:
        """Entity and key."""
        return self.entity, self.key
