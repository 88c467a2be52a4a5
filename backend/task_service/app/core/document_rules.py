"""What documents and requests are held against, and how strictly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ValidationLevel(StrEnum):
    """Which writes the server holds against the schema."""

    STRICT = "strict"
    """All."""
    MODERATE = "moderate"
    """All but updates of documents that did not fit before."""
    OFF = "off"


class ValidationAction(StrEnum):
    """What the server does with a document that does not fit."""

    ERROR = "error"
    WARN = "warn"
    """Write it, and a line into the server's log."""


class UnknownFields(StrEnum):
    """What becomes of fields that the schema does not know."""

    IGNORE = "ignore"
    """The model drops them; the server keeps what it is sent."""
    ALLOW = "allow"
    FORBID = "forbid"


@dataclass(frozen=True, kw_only=True)
class DocumentRules:
    """The rules as they are set. `unknown` None: forbidden in requests, allowed in documents, where others write as well."""

    level: ValidationLevel = ValidationLevel.MODERATE
    action: ValidationAction = ValidationAction.ERROR
    unknown: UnknownFields | None = None

    @property
    def unknown_in_requests(self) -> UnknownFields:
        """For bodies of the HTTP API."""
        return self.unknown or UnknownFields.FORBID

    @property
    def unknown_in_documents(self) -> UnknownFields:
        """For the collections."""
        return self.unknown or UnknownFields.ALLOW
