"""The entry point: a factory that a host calls, and a pluggy plugin for the hooks.

Nothing is imported until a hook is called, so that looking plugins up costs a host nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from importlib.abc import Traversable

    from agent_brain_postgres.backend import PostgresBackend
    from agent_brain_postgres.config import PostgresConfig

hookimpl = pluggy.HookimplMarker("agent_brain")


class PostgresPlugin:
    """The `agent_brain.storage` plugin named `postgres`."""

    def __call__(
        self,
        settings: Mapping[str, Any] | None = None,
        embedding_dimensions: int | None = None,
    ) -> PostgresBackend:
        """Create a backend; `initialize()` connects it.

        `settings` is the mapping under `storage.postgres` of the host's YAML; None has it looked
        for where the core looks. `embedding_dimensions` None leaves them to the settings, the
        running core or the first vector. Raises `SettingsError`.
        """
        from agent_brain_postgres.backend import PostgresBackend
        from agent_brain_postgres.config import load_config

        return PostgresBackend(load_config(settings), embedding_dimensions=embedding_dimensions)

    @hookimpl
    def agent_brain_storage_backend(
        self, settings: Mapping[str, Any] | None, embedding_dimensions: int | None
    ) -> PostgresBackend:
        """Create a backend, as calling the plugin does."""
        return self(settings, embedding_dimensions)

    @hookimpl
    def agent_brain_storage_config_model(self) -> type[PostgresConfig]:
        """Give the settings model."""
        from agent_brain_postgres.config import PostgresConfig

        return PostgresConfig

    @hookimpl
    def agent_brain_storage_router(self, backend: Any) -> Any:
        """Give the router with `/health/postgres`; None without FastAPI or for another backend."""
        from agent_brain_postgres.health import router

        return router(backend)

    @hookimpl
    def agent_brain_storage_template(self) -> Traversable:
        """Give the docker-compose template."""
        from agent_brain_postgres.deploy import template

        return template()


plugin = PostgresPlugin()
