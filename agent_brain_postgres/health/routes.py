"""The FastAPI routes of health; importing this needs the extra `api`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from agent_brain_postgres.health.document import document, pool_stats

if TYPE_CHECKING:
    from agent_brain_postgres.backend import PostgresBackend


def create(backend: PostgresBackend) -> APIRouter:
    """Give the routes of one backend; metrics only where prometheus_client is installed."""
    router = APIRouter(prefix="/health/postgres", tags=["health"])

    @router.get(
        "",
        summary="PostgreSQL health",
        responses={503: {"description": "The database does not answer; `reason` says why."}},
    )
    async def health() -> JSONResponse:
        content = await document(backend)
        return JSONResponse(content, 503 if content["status"] == "unhealthy" else 200)

    try:
        import prometheus_client  # noqa: F401 - only asked whether it is there
    except ImportError:
        return router

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        content = await document(backend)
        text, media_type = _exposition(content, pool_stats(backend), request)
        return Response(text, media_type=media_type)

    return router


def _exposition(
    content: dict[str, Any], stats: dict[str, int], request: Request
) -> tuple[bytes, str]:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    from agent_brain_postgres.health.metrics import HealthCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(HealthCollector(content, stats))
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return encode(registry), media_type
