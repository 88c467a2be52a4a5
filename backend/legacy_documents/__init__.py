"""The old document store: ten collections as many programs left them, seeded and of any size.

Knows nothing of the services or of the engine.
"""

from backend.legacy_documents.errors import DocumentLoadError
from backend.legacy_documents.generator import DocumentGenerator, generate
from backend.legacy_documents.load import load
from backend.legacy_documents.misfits import Misfit, MisfitKind
from backend.legacy_documents.report import DocumentLoadReport
from backend.legacy_documents.size import COLLECTIONS, DocumentsSize

__all__ = [
    "COLLECTIONS",
    "DocumentGenerator",
    "DocumentLoadError",
    "DocumentLoadReport",
    "DocumentsSize",
    "Misfit",
    "MisfitKind",
    "generate",
    "load",
]
