"""Alive, able to serve, and what Prometheus scrapes. Open to all: they tell names of parts, never data."""

# No `from __future__ import annotations` here: FastAPI could not resolve annotations that name a local variable.

from collections.abc import Callable, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from backend.shared.api.errors import NotReadyError
from backend.shared.api.problems import problem_responses
from backend.shared.observability.health import HealthCheck, check_health
from backend.shared.observability.metrics import PROMETHEUS_CONTENT_TYPE, Metrics

_METRICS_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class ComponentState(BaseModel):
    """One part; why it does not work is told to operators only, at `/dual-write/health`."""

    name: str
    ok: bool
    required: bool


class Ready(BaseModel):
    """Every part works that the service needs."""

    status: Literal["ready"] = "ready"
    components: list[ComponentState]


def health_router(get_checks: Callable[[], Sequence[HealthCheck]], *, metrics: Metrics) -> APIRouter:
    """`/healthz`, `/readyz` and `/metrics`. `get_checks` is called at each `/readyz`."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process is alive")
    async def alive() -> Alive:
        return Alive()

    @router.get("/readyz", summary="Whether the service is able to serve", responses=problem_responses(503))
    async def ready() -> Ready:
        health = await check_health(get_checks())
        if not health.ok:
            raise NotReadyError(health)
        return Ready(
            components=[
                ComponentState(name=part.name, ok=part.ok, required=part.required)
                for part in health.components
            ]
        )

    @router.get(
        "/metrics", summary="Prometheus metrics", response_class=Response, responses=_METRICS_RESPONSE
    )
    async def prometheus() -> Response:
        # The header is set by hand: `media_type` would have a second charset appended.
        return Response(metrics.render(), headers={"Content-Type": PROMETHEUS_CONTENT_TYPE})

    return router
