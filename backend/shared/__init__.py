"""The engine: keeps two databases of one service the same. It knows no service.

Services import from here; what is not named below is not theirs to use. Names are loaded when they are first asked for,
so that a program that needs one room does not pay for all of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.shared.document_operations import DocumentAction, DocumentOperation
    from backend.shared.document_service import (
        DocumentDualWriteService,
        SyncFailure,
        SyncMetrics,
        SyncState,
    )
    from backend.shared.domain.errors import (
        AwayError,
        ConfigurationError,
        ConflictError,
        FencedError,
        InstallationError,
        LegacySideError,
        NewSideError,
        NotFoundError,
        PermissionDeniedError,
        SideError,
        TandemError,
        UnauthenticatedError,
        ValidationError,
    )
    from backend.shared.domain.isolation import Isolation
    from backend.shared.domain.mapping import EntityMapping, Key, KeyPart, Projection, Source
    from backend.shared.domain.phases import Direction, Phase, Side
    from backend.shared.domain.results import DualWriteResult, Exercised, SecondWrite
    from backend.shared.domain.sync_status import SyncStatus
    from backend.shared.dual_write_config import DualWriteSettings
    from backend.shared.dual_write_manager import DualWriteManager
    from backend.shared.repository import Repository
    from backend.shared.sync_validator import SyncValidator
    from backend.shared.unit_of_work import UnitOfWork
    from backend.shared.unit_runner import Unit

_HOMES = {
    "document_operations": ("DocumentAction", "DocumentOperation"),
    "document_service": ("DocumentDualWriteService", "SyncFailure", "SyncMetrics", "SyncState"),
    "domain.sync_status": ("SyncStatus",),
    "domain.errors": (
        "AwayError",
        "ConfigurationError",
        "ConflictError",
        "FencedError",
        "InstallationError",
        "LegacySideError",
        "NewSideError",
        "NotFoundError",
        "PermissionDeniedError",
        "SideError",
        "TandemError",
        "UnauthenticatedError",
        "ValidationError",
    ),
    "domain.isolation": ("Isolation",),
    "domain.mapping": ("EntityMapping", "Key", "KeyPart", "Projection", "Source"),
    "domain.phases": ("Direction", "Phase", "Side"),
    "domain.results": ("DualWriteResult", "Exercised", "SecondWrite"),
    "dual_write_config": ("DualWriteSettings",),
    "dual_write_manager": ("DualWriteManager",),
    "repository": ("Repository",),
    "sync_validator": ("SyncValidator",),
    "unit_of_work": ("UnitOfWork",),
    "unit_runner": ("Unit",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AwayError",
    "ConfigurationError",
    "ConflictError",
    "Direction",
    "DocumentAction",
    "DocumentDualWriteService",
    "DocumentOperation",
    "DualWriteManager",
    "DualWriteResult",
    "DualWriteSettings",
    "EntityMapping",
    "Exercised",
    "FencedError",
    "InstallationError",
    "Isolation",
    "Key",
    "KeyPart",
    "LegacySideError",
    "NewSideError",
    "NotFoundError",
    "PermissionDeniedError",
    "Phase",
    "Projection",
    "Repository",
    "SecondWrite",
    "Side",
    "SideError",
    "Source",
    "SyncFailure",
    "SyncMetrics",
    "SyncState",
    "SyncStatus",
    "SyncValidator",
    "TandemError",
    "UnauthenticatedError",
    "Unit",
    "UnitOfWork",
    "ValidationError",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
