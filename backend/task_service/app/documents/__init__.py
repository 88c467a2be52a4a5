"""What the documents of the ten collections look like: to the API, and to the server that keeps them."""

from ..core.document_rules import UnknownFields, ValidationAction, ValidationLevel
from .models import DOCUMENTS, AnyDocument, ObjectIdText, document_model
from .schemas import json_schema
from .validators import apply_validators

__all__ = [
    "DOCUMENTS",
    "AnyDocument",
    "ObjectIdText",
    "UnknownFields",
    "ValidationAction",
    "ValidationLevel",
    "apply_validators",
    "document_model",
    "json_schema",
]
