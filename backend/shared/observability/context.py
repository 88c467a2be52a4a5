"""The request that the current task works for, carried from the edge to the relay's lines."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bound_contextvars, get_contextvars

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def current_request_id() -> str | None:
    """The id of the request being served, or None outside of one."""
    value = get_contextvars().get("request_id")
    return value if isinstance(value, str) else None


def accept_request_id(offered: str | None) -> str:
    """`offered` when it is short and plain enough to be put in logs and headers, else a new random id."""
    if offered and _SANE_REQUEST_ID.match(offered):
        return offered
    return uuid.uuid4().hex


@contextmanager
def request_context(*, request_id: str | None, **values: str) -> Iterator[None]:
    """Bind `request_id` (when there is one) and `values` to every log line written inside."""
    if request_id is not None:
        values["request_id"] = request_id
    with bound_contextvars(**values):
        yield
