"""The entry point, as hosts use it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pluggy

from agent_brain_postgres import PostgresBackend, PostgresConfig, hookspecs
from agent_brain_postgres.plugin import plugin

from .chunks import make_chunks


def _settings(config: PostgresConfig) -> dict[str, object]:
    return {
        "host": config.host,
        "port": config.port,
        "database": config.database,
        "user": config.user,
        "pool_size": 1,
        "pool_max": 2,
    }


async def test_a_host_finds_the_backend_by_name(config: PostgresConfig) -> None:
    (entry_point,) = entry_points(group="agent_brain.storage", name="postgres")
    backend = entry_point.load()(_settings(config), embedding_dimensions=8)
    await backend.initialize()
    assert await backend.upsert_documents(*make_chunks(3)) == 3
    await backend.close()


def test_pluggy_loads_the_same_object_from_the_entry_point(config: PostgresConfig) -> None:
    manager = pluggy.PluginManager("agent_brain")
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints("agent_brain.storage")
    manager.check_pending()
    assert manager.get_plugin("postgres") is plugin
    backend = manager.hook.agent_brain_storage_backend(
        settings=_settings(config), embedding_dimensions=8
    )
    assert isinstance(backend, PostgresBackend)
    assert manager.hook.agent_brain_storage_config_model() == [PostgresConfig]
    (template,) = manager.hook.agent_brain_storage_template()
    assert "services:" in template.read_text(encoding="utf-8")
    (router,) = manager.hook.agent_brain_storage_router(backend=backend)
    assert "/health/postgres" in {route.path for route in router.routes}


def test_loading_the_entry_point_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "(e,) = entry_points(group='agent_brain.storage', name='postgres')\n"
        "e.load()\n"
        "heavy = {'fastapi', 'chromadb', 'numpy', 'pydantic', 'torch', 'wordllama', 'rich', 'yaml'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
