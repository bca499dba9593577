"""Health: one document for people, load balancers and the core; Prometheus metrics for machines.

    await document(backend)     # within a second, whatever has failed
    router(backend)             # FastAPI: GET /health/postgres and /health/postgres/metrics
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_brain_postgres.health.document import document

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["document", "router"]


def router(backend: Any) -> APIRouter | None:
    """Give the FastAPI router of a backend; None without FastAPI, or for another's backend."""
    from agent_brain_postgres.backend import PostgresBackend

    if not isinstance(backend, PostgresBackend):
        return None
    try:
        from agent_brain_postgres.health import routes
    except ImportError:
        return None
    return routes.create(backend)
