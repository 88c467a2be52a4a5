"""Logs: one JSON object a line on stdout, from structlog and from the standard library alike."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.masking import mask_value

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# Loggers that bring handlers of their own; their lines go through ours instead.
_ROUTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy", "alembic", "asyncio", "fastapi")
# Chatty at INFO: a line per HTTP call or per statement; uvicorn's access lines are written by our middleware.
_QUIET = (
    "uvicorn.access",
    "httpx",
    "httpcore",
    "sqlalchemy.engine",
    "sqlalchemy.pool",
    "alembic.runtime.plugins",
)


_processors: list[Processor] = []
"""The same list for good: a logger that has been used keeps the one that it found then."""


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stdout` is at the moment of writing, not at the moment of set-up."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignored: the stream is always the present stdout."""


def configure_logging(service: str, *, level: str = "INFO", json: bool = True) -> None:
    """Send every log line of this process to stdout, masked, with `service` and the request id where there is one.

    May be called again (the last call holds). Raises ConfigurationError for an unknown `level`.
    """
    name = level.strip().upper()
    if name not in _LEVELS:
        raise ConfigurationError(
            f"unknown log level {level!r}; one of {', '.join(_LEVELS)}", variable="LOG_LEVEL"
        )
    shared = _shared_processors(service)
    _processors[:] = [structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _StdoutHandler()
    handler.setFormatter(
        ProcessorFormatter(foreign_pre_chain=shared, processors=_final_processors(json=json))
    )
    root = logging.getLogger()
    for old in [existing for existing in root.handlers if isinstance(existing, _StdoutHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(name)
    _route_standard_library()


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: masks secret keys, and secrets inside of texts, exceptions included."""
    # Underscored entries are structlog's own and are not written.
    own = {key: value for key, value in event.items() if key.startswith("_")}
    said = {key: value for key, value in event.items() if not key.startswith("_")}
    return {**mask_value(said), **own}


def _route_standard_library() -> None:
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _shared_processors(service: str) -> list[Processor]:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        add_service,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
        _drop_color_message,
        # Last, so that nothing escapes it; but before the line is handed to handlers, of which others may add some.
        mask_secrets,
    ]


def _final_processors(*, json: bool) -> list[Processor]:
    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    return [ProcessorFormatter.remove_processors_meta, renderer]


def _drop_color_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # uvicorn repeats its message with terminal colours.
    event.pop("color_message", None)
    return event
