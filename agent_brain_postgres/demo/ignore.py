"""Which paths `.gitignore` files leave out: the rules that real ones use."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Directories that hold what others made. Virtual environments are known by their pyvenv.cfg.
_GENERATED = (
    ".git .hg .svn .bzr .tox .nox .venv .eggs .idea .vscode .cache .gradle .terraform "
    ".agent-brain .mypy_cache .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints "
    "__pycache__ __pypackages__ node_modules bower_components site-packages"
)
GENERATED = frozenset(_GENERATED.split())


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    keep: bool
    directories_only: bool


class IgnoreFile:
    """The rules of one `.gitignore`, for paths below its directory."""

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        self._rules = [rule for line in text.splitlines() if (rule := _parse(line))]

    def verdict(self, path: Path, is_directory: bool) -> bool | None:
        """Say whether the path is ignored; None when no rule mentions it. The last rule wins."""
        name = path.relative_to(self.directory).as_posix()
        for rule in reversed(self._rules):
            if (is_directory or not rule.directories_only) and rule.pattern.fullmatch(name):
                return not rule.keep
        return None


def read_ignore_file(directory: Path) -> IgnoreFile | None:
    """Read the `.gitignore` of a directory, if there is a readable one."""
    try:
        text = (directory / ".gitignore").read_text("utf-8", errors="replace")
    except OSError:
        return None
    return IgnoreFile(directory, text)


def ignore_files_above(directory: Path) -> list[IgnoreFile]:
    """Read the `.gitignore` files from the root of the git repository down to the parent."""
    for count, ancestor in enumerate((directory, *directory.parents)):
        if os.access(ancestor / ".git", os.F_OK):
            between = reversed(directory.parents[:count])
            return [found for parent in between if (found := read_ignore_file(parent))]
    return []


def is_ignored(path: Path, is_directory: bool, ignore_files: list[IgnoreFile]) -> bool:
    """Apply the ignore files, the deepest first, and the list of generated directories."""
    if is_directory and path.name in GENERATED:
        return True
    for ignore_file in reversed(ignore_files):
        verdict = ignore_file.verdict(path, is_directory)
        if verdict is not None:
            return verdict
    return False


def _parse(line: str) -> _Rule | None:
    line = line.rstrip("\n\r")
    if not line.endswith("\\ "):
        line = line.rstrip(" ")
    if not line or line.startswith("#"):
        return None
    keep = line.startswith("!")
    line = line.removeprefix("!").removeprefix("\\")
    directories_only = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    expression = _translate(line.removeprefix("/"))
    try:
        pattern = re.compile(expression if anchored else f"(?:.*/)?{expression}", re.DOTALL)
    except re.error:
        return None
    return _Rule(pattern, keep, directories_only)


_TOKEN = re.compile(r"\*\*/|/\*\*$|\*+|\?|\[!?\]?[^]]*\]|\\.|.", re.DOTALL)


def _translate(glob: str) -> str:
    return "".join(map(_expression, _TOKEN.findall(glob)))


def _expression(token: str) -> str:
    wild = {"**/": "(?:.*/)?", "/**": "/.*", "?": "[^/]"}
    if token in wild:
        return wild[token]
    if token.startswith("*"):
        return "[^/]*"
    if token.startswith("[") and len(token) > 2:
        inside = token[1:-1].replace("\\", "\\\\")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    if token.startswith("\\") and len(token) == 2:
        return re.escape(token[1])
    return re.escape(token)
