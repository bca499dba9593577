"""`python -m agent_brain_postgres.core.server [ARGS]`: the core's server on this backend.

The finder is installed on import, not only under `__main__`: with `--reload` the core serves
from a spawned process, which imports this module again as its parent's main module.
"""

from __future__ import annotations

import importlib

from agent_brain_postgres import core

core.install()


def main() -> None:
    """Run the core's own command line."""
    importlib.import_module("agent_brain_server.api.main").cli()


if __name__ == "__main__":
    main()
