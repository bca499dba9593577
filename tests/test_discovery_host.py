"""A host that looks backends up by name, in the 30 lines that `docs/core-discovery.md` shows."""

from __future__ import annotations

import asyncio
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy
import pytest
from psycopg.conninfo import conninfo_to_dict

from agent_brain_postgres import PostgresBackend

DOCUMENT = Path(__file__).parents[1] / "docs" / "core-discovery.md"
METADATA = [{"source": "/a/walrus.md"}, {"source": "/a/heron.md"}]


# begin: plain importlib.metadata
def load_backend(name: str, settings: dict[str, Any], dimensions: int | None = None) -> Any:
    """Find a storage backend by its name and create it."""
    for entry_point in entry_points(group="agent_brain.storage"):
        if entry_point.name == name:
            return entry_point.load()(settings, embedding_dimensions=dimensions)
    known = sorted(entry_point.name for entry_point in entry_points(group="agent_brain.storage"))
    raise ValueError(f"no storage backend named {name!r} is installed; there are: {known}")


async def index_and_search(backend: Any) -> list[Any]:
    """Use a backend through the storage protocol alone."""
    await backend.initialize()
    try:
        await backend.upsert_documents(
            ids=["chunk_1", "chunk_2"],
            embeddings=[[1.0, 0.0], [0.0, 1.0]],
            documents=["the walrus rests on the ice", "the heron stands in the water"],
            metadatas=METADATA,
        )
        near = await backend.vector_search([0.9, 0.1], top_k=1, similarity_threshold=0.0)
        named = await backend.keyword_search("heron", top_k=1)
        return [*near, *named]
    finally:
        await backend.close()


# end: plain importlib.metadata


# begin: pluggy
def load_backend_by_hook(settings: dict[str, Any], dimensions: int | None = None) -> Any:
    """Let the plugins create the backend; the first that gives one wins."""
    from agent_brain_postgres import hookspecs  # a core has hookspecs of its own

    manager = pluggy.PluginManager("agent_brain")
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints("agent_brain.storage")
    return manager.hook.agent_brain_storage_backend(
        settings=settings, embedding_dimensions=dimensions
    )


# end: pluggy


@pytest.fixture
def settings(dsn: str) -> dict[str, Any]:
    """What a host's YAML would say under `storage.postgres`."""
    given = conninfo_to_dict(dsn)
    names = {"host": "host", "port": "port", "dbname": "database", "user": "user"}
    found = {names[key]: value for key, value in given.items() if key in names}
    return found | {"password": given["password"]} if "password" in given else found


@pytest.mark.parametrize("load", [lambda s: load_backend("postgres", s), load_backend_by_hook])
def test_a_host_finds_the_backend_by_name_and_uses_it(load: Any, settings: dict[str, Any]) -> None:
    backend = load(settings)
    assert isinstance(backend, PostgresBackend)
    found = asyncio.run(index_and_search(backend))
    assert [result.chunk_id for result in found] == ["chunk_1", "chunk_2"]


def test_a_host_names_what_there_is_when_the_name_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"'oracle'.*postgres"):
        load_backend("oracle", {})


@pytest.mark.parametrize("part", ["plain importlib.metadata", "pluggy"])
def test_the_document_shows_this_very_host(part: str) -> None:
    source = Path(__file__).read_text()
    marked = re.search(rf"# begin: {part}\n(.*?)\n+# end: {part}\n", source, re.DOTALL)
    assert marked is not None
    assert f"```python\n{marked[1].rstrip()}\n```" in DOCUMENT.read_text()
