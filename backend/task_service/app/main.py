"""The task service, wired together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from fastapi import FastAPI

from backend.shared import TandemError
from backend.shared.api.application import build_app
from backend.shared.api.running import Closing, Part, end_process, running
from backend.shared.api.security import make_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .container import make_store
from .core.document_rules import UnknownFields
from .core.problems import install_store_problems
from .core.settings import TaskSettings
from .ports import Repositories, TaskStore
from .unknown_fields import treat_unknown_fields

_end = end_process("task")
DESCRIPTION = (
    "What is to be done: tasks with their labels and checklists, and the users and teams who do them."
)


def create_app(*, repositories: Repositories | None = None) -> FastAPI:
    """What a server is told to serve, with settings from the environment; with `repositories`, on those.

    When a setting is wrong, or the store is down or lacks something, the process ends with one line and exit code 2.
    """
    try:
        settings = TaskSettings.from_env()
        configure_logging("task", level=settings.log_level)
        return make_app(
            store=make_store(settings, repositories=repositories),
            metrics=default_metrics(),
            verifier=make_verifier(jwks_url=settings.jwks_url, public_key_file=settings.public_key_file),
            unknown_fields=settings.document_rules.unknown_in_requests,
            on_failed_start=_end,
        )
    except TandemError as error:
        _end(error)


def make_app(
    *,
    store: TaskStore,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    unknown_fields: UnknownFields = UnknownFields.FORBID,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `store`, which it starts and closes. A failed start is told to `on_failed_start` first."""
    manager = getattr(store, "manager", None)  # where the engine keeps two stores the same
    parts: list[Part] = [Closing(aclose=verifier.aclose)] if verifier else []
    parts.append(store)
    app = build_app(
        "Tandem task service",
        version=version("tandem"),
        service="task",
        description=DESCRIPTION,
        metrics=metrics,
        routers=routers(dual=manager is not None),
        lifespan=running(parts, on_failed_start=on_failed_start),
        health_checks=lambda: _health_checks(store),
        token_verifier=verifier,
        tags=TAGS,
    )
    install_store_problems(app)
    treat_unknown_fields(app, unknown_fields)
    app.state.store = store
    app.state.manager = manager
    return app


def _health_checks(store: TaskStore) -> Sequence[HealthCheck]:
    """The store that answers is needed. Without the other one of two the service goes on, and the journal grows."""
    manager = getattr(store, "manager", None)
    if manager is None:
        return [ProbeCheck(name="store", call=store.check)]
    authoritative = manager.phase.policy.authoritative
    return [
        ProbeCheck(name=f"{side.value} database", call=found.ping, required=side is authoritative)
        for side, found in manager.runtime.stores.items()
    ]
