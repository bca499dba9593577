"""Where a project keeps its Agent Brain files, found as the core finds it."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from agent_brain_postgres.settings_files import STATE_DIRECTORIES, find_state_directory


def state_directory() -> Path:
    """Give the project's state directory, which may not exist yet.

    In order: `AGENT_BRAIN_STATE_DIR`; the nearest `.agent-brain/` or `.claude/agent-brain/`
    upwards; `.agent-brain/` in the root of the git repository; in the nearest directory upwards
    that has `.claude/` or `pyproject.toml`; in the working directory.
    """
    found = find_state_directory()
    return found.absolute() if found else project_root() / STATE_DIRECTORIES[0]


def project_root() -> Path:
    """Give the root of the project that the working directory belongs to."""
    here = Path.cwd().resolve()
    return _git_root(here) or _marked(here) or here


def _git_root(here: Path) -> Path | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],  # noqa: S607 - the user's own git
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    root = answer.stdout.rstrip("\n")
    return Path(root).resolve() if answer.returncode == 0 and root else None


def _marked(here: Path) -> Path | None:
    for directory in (here, *here.parents):
        if directory == directory.parent:
            return None
        if (directory / ".claude").is_dir() or (directory / "pyproject.toml").is_file():
            return directory
    return None


def compose_project(state_dir: Path) -> str:
    """Name the compose project: readable, and another one for every state directory.

    Compose would call it after its directory, which is `agent-brain` in every project.
    """
    path = state_dir.resolve()
    owner = path.parent.parent if path.parent.name == ".claude" else path.parent
    readable = re.sub(r"[^a-z0-9]+", "-", owner.name.lower()).strip("-")[:32].strip("-")
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return "-".join(part for part in ("agent-brain", readable, digest) if part)
