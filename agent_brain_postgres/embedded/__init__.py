"""PostgreSQL 16 with pgvector, without Docker: the extra `embedded`.

    server = embedded.start(Path(".agent-brain/postgres"), "agent_brain")   # blocking
    server.conninfo     # a libpq connection string: a Unix socket, no password
    server.close()      # idempotent; also at interpreter exit

`start` may be called any number of times, from any number of threads and processes, for the same
directory: all share one server. It stops when the last user closes its handle or dies, however it
dies. Every failure is a `StorageError`. Importing this package needs nothing beyond the base
installation; an `EmbeddedServer` is also a context manager.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import EmbeddedServer

__all__ = ["EmbeddedServer", "start"]


def start(directory: Path | str, database: str) -> EmbeddedServer:
    """Start PostgreSQL on the data in `directory`, or join the server that runs there.

    The directory and the database are created when they are missing.
    """
    from .binaries import find_installation

    installation = find_installation()  # first: the rest does not import on Windows
    from .server import join

    return join(Path(directory), database, installation)


def __getattr__(name: str) -> object:
    if name == "EmbeddedServer":
        from .server import EmbeddedServer

        return EmbeddedServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
