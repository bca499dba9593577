"""Answers the import system for the core's PostgreSQL package and its submodules."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from agent_brain_postgres.core import CORE_MODULE

GROUP = "agent_brain.storage"
NAME = "postgres"
SHIM = "agent_brain_postgres.core.shim"

# What the core's package offers, by submodule, so that `from ....postgres.config import X` works.
EXPORTS = {
    "": (
        "PostgresBackend",
        "PostgresConfig",
        "PostgresConnectionManager",
        "PostgresSchemaManager",
    ),
    "backend": ("PostgresBackend",),
    "config": ("PostgresConfig",),
    "connection": ("PostgresConnectionManager",),
    "schema": ("PostgresSchemaManager",),
}


class _Loader:
    """Fills a module with the shim's classes; everything that can fail was done before."""

    def __init__(self, shim: ModuleType, exports: tuple[str, ...]) -> None:
        self._shim = shim
        self._exports = exports

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        for name in self._exports:
            setattr(module, name, getattr(self._shim, name))
        vars(module)["__all__"] = list(self._exports)
        vars(module)["__doc__"] = "Supplied by agent-brain-postgres."
        vars(module)["__agent_brain_postgres__"] = True


def find_spec(name: str) -> ModuleSpec | None:
    """Give the spec of the core's module `name`, or None: then the core's own is imported.

    Whatever goes wrong here is a warning; the server starts, on its built-in backend.
    """
    submodule = name[len(CORE_MODULE) :].lstrip(".")
    if submodule not in EXPORTS or (submodule and not _supplied(CORE_MODULE)):
        return None
    try:
        if entry_point() is None:
            return None
        shim = importlib.import_module(SHIM)
    except Exception as error:  # any error at all: the core must come up
        _warn(error)
        return None
    loader = _Loader(shim, EXPORTS[submodule])
    spec = ModuleSpec(name, loader, origin=shim.__file__, is_package=not submodule)  # type: ignore[arg-type]
    if not submodule:
        spec.submodule_search_locations = []
    return spec


def entry_point() -> EntryPoint | None:
    """Find this distribution's entry point: what a core with a look-up of its own would load."""
    for candidate in entry_points(group=GROUP):
        if candidate.name == NAME and candidate.value.startswith("agent_brain_postgres."):
            return candidate
    return None


def _supplied(name: str) -> bool:
    return getattr(sys.modules.get(name), "__agent_brain_postgres__", False) is True


def _warn(error: Exception) -> None:
    message = (
        f"agent-brain-postgres could not be loaded ({type(error).__name__}: {error}); "
        "Agent Brain uses its built-in PostgreSQL backend"
    )
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except Warning:  # warnings are errors in this interpreter: even so nothing may break
        print(message, file=sys.stderr)
