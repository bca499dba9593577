"""The hooks that a host of storage backends calls, declared for pluggy project `agent_brain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("agent_brain")


@hookspec(firstresult=True)
def agent_brain_storage_backend(
    settings: Mapping[str, Any] | None, embedding_dimensions: int | None
) -> Any:
    """Create a backend from the host's settings; the first plugin that gives one wins."""


@hookspec
def agent_brain_storage_config_model() -> Any:
    """Give the pydantic model (a class) of the backend's settings."""


@hookspec
def agent_brain_storage_router(backend: Any) -> Any:
    """Give a FastAPI router with the backend's own routes, or None."""


@hookspec
def agent_brain_storage_template() -> Any:
    """Give the docker-compose template that runs the backend's database, as a `Traversable`."""
