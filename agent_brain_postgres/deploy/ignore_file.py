"""The project's `.gitignore`: the environment file, which holds a password, belongs in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Literal

from agent_brain_postgres.deploy import files

Ending = Literal["*", "/"]


def find(secret: Path) -> Path | None:
    """Find the nearest `.gitignore` at or above a file, not beyond its git repository."""
    for directory in secret.resolve().parents:
        candidate = directory / ".gitignore"
        if candidate.is_file():
            return candidate
        if (directory / ".git").exists():
            return None
    return None


def with_entry(text: str, ignore_file: Path, path: Path, ending: Ending = "*") -> str:
    """Add a file, and the backups beside it, to the text of a `.gitignore` that lacks it.

    `ending` "/" adds a directory instead.
    """
    entry = pattern(ignore_file, path) + ending
    if entry in (line.strip() for line in text.split("\n")) or _is_ignored(path, ending):
        return text
    separator = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{separator}{entry}\n"


def pattern(ignore_file: Path, path: Path) -> str:
    """Give the pattern that names a path, and no other, in a `.gitignore` above it."""
    relative = path.resolve().relative_to(ignore_file.resolve().parent).as_posix()
    return "/" + re.sub(r"([\\*?\[])", r"\\\1", relative)


def _is_ignored(path: Path, ending: Ending) -> bool:
    """Ask git; where there is no git, assume that nothing ignores it yet."""
    asked = str(path.resolve()) + ending.strip("*")
    directory = next(parent for parent in path.resolve().parents if parent.is_dir())
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words and a path, no shell
            ["git", "check-ignore", "--quiet", "--no-index", asked],  # noqa: S607
            cwd=directory,
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def load(path: Path) -> files.TextFile:
    """Read a `.gitignore` that exists."""
    return files.read(path) or files.TextFile("")
