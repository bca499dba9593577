"""The project's `.gitignore`: the environment file, which holds a password, belongs in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from agent_brain_postgres.deploy import files


def find(secret: Path) -> Path | None:
    """Find the nearest `.gitignore` at or above a file, not beyond its git repository."""
    for directory in secret.resolve().parents:
        candidate = directory / ".gitignore"
        if candidate.is_file():
            return candidate
        if (directory / ".git").exists():
            return None
    return None


def with_entry(text: str, ignore_file: Path, secret: Path) -> str:
    """Add a file, and the backups beside it, to the text of a `.gitignore` that lacks it."""
    entry = pattern(ignore_file, secret)
    if entry in (line.strip() for line in text.split("\n")) or _is_ignored(secret):
        return text
    separator = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{separator}{entry}\n"


def pattern(ignore_file: Path, secret: Path) -> str:
    """Give the pattern that names a file, and what `--force` backs it up as, in a `.gitignore`."""
    relative = secret.resolve().relative_to(ignore_file.resolve().parent).as_posix()
    return "/" + re.sub(r"([\\*?\[])", r"\\\1", relative) + "*"


def _is_ignored(secret: Path) -> bool:
    """Ask git; where there is no git, assume that nothing ignores it yet."""
    directory = next(parent for parent in secret.resolve().parents if parent.is_dir())
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words and a path, no shell
            ["git", "check-ignore", "--quiet", "--no-index", str(secret.resolve())],  # noqa: S607
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
