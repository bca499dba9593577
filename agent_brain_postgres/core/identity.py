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
    for name, (home, core_module) in _REPLACED.items():
        own = getattr(home, name)
        core = getattr(importlib.import_module(core_module), name)
        if own is not core:
            _join(own, core)
            _rebind(name, own, core)


def _join(own: Any, core: type) -> None:
    """Give the subclasses of `own` the core's class as their first base.

    `own` stays a base: an application that imported it before still catches what is raised.
    """
    for subclass in own.__subclasses__():
        if own in subclass.__bases__ and not issubclass(subclass, core):
            subclass.__bases__ = (core, *subclass.__bases__)


def _rebind(name: str, own: type, core: type) -> None:
    """Let every module of this package that knows `own` by `name` use the core's class instead."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "agent_brain_postgres" and (
            vars(module).get(name) is own
        ):
            setattr(module, name, core)
