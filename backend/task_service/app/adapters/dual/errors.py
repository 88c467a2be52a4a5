"""What a side's refusal of a write means to the use cases: the same as where there is a single store."""

from __future__ import annotations

from backend.shared import FencedError, SideError

from ..rows.errors import explain_refusal

_OF_DOCUMENTS = {"mongo:11000": "23505", "mongo:121": "23514"}
"""SQLSTATEs of what a server of documents may refuse as well."""


def explain_side_error(error: SideError) -> Exception:
    """An error of the ports where the side refused what was written; else `error` itself, which names its side."""
    if error.unavailable or isinstance(error, FencedError):
        return error
    state = error.sqlstate or "22000"  # a value that was refused before any server saw it has no code
    return explain_refusal(_OF_DOCUMENTS.get(state, state), store=error.side.value) or error
