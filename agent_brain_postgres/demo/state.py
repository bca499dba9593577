"""Where the demo keeps its store."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from agent_brain_postgres.errors import PostgresStorageError


def state_directory(root: Path, chosen: Path | None, keep: bool) -> Path:
    """Choose and create the directory: the chosen one, the folder's own, or one in the cache.

    The same folder gets the same directory in each run, so that the second finds the first one's.
    """
    if chosen is not None:
        directory = chosen.absolute()
    elif keep:
        directory = _home_of(root) / ".agent-brain" / "demo"
    else:
        name = hashlib.blake2b(os.fsencode(root), digest_size=6).hexdigest()
        directory = _cache() / "agent-brain-postgres" / "demo" / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if chosen is None and keep:
            (directory / ".gitignore").write_text("*\n")
    except OSError as error:
        raise PostgresStorageError(
            f"cannot create {directory}: {error.strerror}; choose another place with --state-dir"
        ) from error
    return directory.resolve()


def _home_of(root: Path) -> Path:
    return root if root.is_dir() else root.parent


def _cache() -> Path:
    """Give the user's cache directory (XDG), or the temporary one where there is no home."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if Path(configured).is_absolute():
        return Path(configured)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return Path(tempfile.gettempdir())
