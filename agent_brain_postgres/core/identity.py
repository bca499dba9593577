"""Makes this package's exceptions and results the core's own, whichever was imported first.

`errors` and `types` take the core's classes when the core is already there. When they were
imported before it (`agent-brain-postgres serve`, an embedding application), they made classes
of their own, and `adopt` mends that.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from agent_brain_postgres import errors, types

_REPLACED = {
    "StorageError": (errors, "agent_brain_server.storage.protocol"),
    "SearchResult": (types, "agent_brain_server.storage.protocol"),
    "EmbeddingMetadata": (types, "agent_brain_server.storage.protocol"),
    "ProviderMismatchError": (errors, "agent_brain_server.providers.exceptions"),
}


def adopt() -> None:
    """Join this package's classes to those of the core, which is imported if it is not yet."""
    protocol = importlib.import_module("agent_brain_server.storage.protocol")
    _join(errors.PostgresStorageError, protocol.StorageError)
    for name, (home, core_module) in _REPLACED.items():
        own = getattr(home, name)
        _rebind(name, own, getattr(importlib.import_module(core_module), name))


def _join(own: Any, core: type[Exception]) -> None:
    """Give `own` the core's class as its first base.

    Its former base stays: an application that imported it before still catches what is raised.
    """
    if not issubclass(own, core):
        own.__bases__ = (core, *own.__bases__)


def _rebind(name: str, own: type, core: type) -> None:
    """Let every module of this package that knows `own` by `name` use the core's class instead."""
    if own is core:
        return
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "agent_brain_postgres" and (
            vars(module).get(name) is own
        ):
            setattr(module, name, core)
