"""Run the published core (`agent-brain-rag` 10.x) on this backend.

That core has no look-up of backends by name. `install` puts a finder at the front of
`sys.meta_path` that answers for one module, `agent_brain_server.storage.postgres`; no function
of the core is patched. The standard library is all this package imports until the core asks.
"""

from __future__ import annotations

import sys

CORE_MODULE = "agent_brain_server.storage.postgres"
FINDER = "AgentBrainPostgresFinder"

__all__ = ["CORE_MODULE", "install", "is_installed", "uninstall"]


def is_installed() -> bool:
    """Say whether the finder is active in this interpreter (by `install` or by the .pth file)."""
    return any(type(finder).__name__ == FINDER for finder in sys.meta_path)


def install() -> None:
    """Make the core load this backend; call it before the core creates its own.

    Idempotent. A built-in module that is imported already is forgotten, so that the next
    import finds this one; objects made from it stay what they are.
    """
    if not is_installed():
        from agent_brain_postgres.core.bootstrap import AgentBrainPostgresFinder

        if not is_installed():  # importing the bootstrap installs it the first time
            sys.meta_path.insert(0, AgentBrainPostgresFinder())
    _forget(builtin=True)


def uninstall() -> None:
    """Take the finder out again; the core's next import finds its own backend."""
    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != FINDER]
    _forget(builtin=False)


def _forget(*, builtin: bool) -> None:
    """Drop the imported modules of one kind: the core's own, or ours."""
    package = sys.modules.get(CORE_MODULE)
    if package is None or (getattr(package, "__agent_brain_postgres__", False) is builtin):
        return
    for name in [n for n in sys.modules if n == CORE_MODULE or n.startswith(CORE_MODULE + ".")]:
        del sys.modules[name]
    parent = sys.modules.get(CORE_MODULE.rpartition(".")[0])
    if parent is not None and hasattr(parent, "postgres"):
        delattr(parent, "postgres")
