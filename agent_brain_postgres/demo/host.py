"""Be a host: find the backend by its name and open it, on a store of the demo's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from agent_brain_postgres.errors import PostgresStorageError

from .embedding import DIMENSIONS

if TYPE_CHECKING:
    from agent_brain_postgres.backend import PostgresBackend

GROUP = "agent_brain.storage"
NAME = "postgres"


def load_backend(directory: Path) -> PostgresBackend:
    """Create the backend through its entry point, with PostgreSQL embedded in `directory`."""
    found = entry_points(group=GROUP, name=NAME)
    if not found:
        raise PostgresStorageError(
            f"no entry point {NAME!r} in the group {GROUP!r}: install this package with pip"
        )
    settings = {"embedded": os.fspath(directory)}
    factory = next(iter(found)).load()
    with _only_these(settings):
        backend: PostgresBackend = factory(settings, embedding_dimensions=DIMENSIONS)
    return backend


@contextmanager
def _only_these(settings: dict[str, str]) -> Iterator[None]:
    """Keep the user's own settings out: the demo must never write to the database they name.

    The environment is stronger than a host's settings, and stronger than any `.env` file.
    """
    prefix = "AGENT_BRAIN_POSTGRES_"
    saved = dict(os.environ)
    for key in saved:
        if key == "DATABASE_URL" or key.startswith(prefix):
            del os.environ[key]
    defaults = {"database": "agent_brain", "db_schema": "agent_brain", "metric": "cosine"}
    for key, value in {**defaults, **settings}.items():
        os.environ[prefix + key.upper()] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
