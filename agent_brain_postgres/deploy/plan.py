"""What a deployment would write: shown first, then written."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent_brain_postgres.deploy import env_file, files, ports
from agent_brain_postgres.deploy.modes import Mode
from agent_brain_postgres.deploy.state import state_directory
from agent_brain_postgres.deploy.template import COMPOSE_NAME

CONFIG_NAME = "config.yaml"
EMBEDDED_NAME = "postgres"  # as `PostgresConfig.embedded_directory` has it

_MASK = "********"
_SECRET_LINE = re.compile(
    r"""(?ix) ^ ( [+\- ]? \s* (?:export\s+)? ["']?
    [\w.-]* (?:password|passwd|secret|token|api_?key|credential|database_url) [\w.-]*
    ["']? \s* [:=] \s* ) \S .* $"""
)


@dataclass(frozen=True, slots=True)
class Change:
    """A file before and after; `mode` None keeps the mode that it has.

    `summary` stands for the text of a new file that nobody needs to read through.
    """

    path: Path
    before: files.TextFile | None
    after: files.TextFile
    mode: int | None = None
    summary: str = ""

    @property
    def is_needed(self) -> bool:
        """Whether the text or the mode differs from what is there."""
        return self.before != self.after or self._mode_differs()

    def _mode_differs(self) -> bool:
        if self.mode is None or os.name == "nt" or not self.path.exists():
            return False
        return self.path.stat().st_mode & 0o777 != self.mode

    def diff(self) -> str:
        """Show the change as a unified diff, secrets masked."""
        if self.before is None and self.summary:
            return f"--- /dev/null\n+++ {self.path}\n({self.summary})"
        before = self.before.text.splitlines() if self.before else []
        after = self.after.text.splitlines()
        source = str(self.path) if self.before else "/dev/null"
        lines = difflib.unified_diff(before, after, source, str(self.path), lineterm="")
        return "\n".join(map(masked, lines))

    def apply(self, keep_backup: bool) -> Path | None:
        """Write the file; gives the backup of the one that was there, if one was asked for."""
        replaces = self.before is not None and self.before != self.after
        backup = files.back_up(self.path) if keep_backup and replaces else None
        files.write(self.path, self.after, self.mode)
        return backup


def masked(line: str) -> str:
    """Hide the value of a line that sets a secret."""
    return _SECRET_LINE.sub(rf"\g<1>{_MASK}", line)


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a deployment as they should be, and what to tell the user.

    A port stays reserved for the project from now on; `abandon` gives it up again.
    """

    state_dir: Path
    mode: Mode
    changes: tuple[Change, ...]
    port: int | None = None
    port_is_new: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def needed(self) -> tuple[Change, ...]:
        """The changes that are not made yet; empty the second time."""
        return tuple(change for change in self.changes if change.is_needed)

    def diff(self) -> str:
        """Show every needed change as a unified diff, secrets masked."""
        return "\n".join(filter(None, (change.diff() for change in self.needed)))

    def apply(self, keep_backup: bool = False) -> list[Path]:
        """Write what is needed, each file whole or not at all; gives the backups made."""
        backups = [change.apply(keep_backup) for change in self.needed]
        return [backup for backup in backups if backup is not None]

    def abandon(self) -> None:
        """Give up a port that was reserved for this plan."""
        if self.port_is_new:
            ports.release(self.state_dir)

    @property
    def embedded_directory(self) -> Path:
        """Where the embedded server keeps its data, unless the settings name a directory."""
        return self.state_dir / EMBEDDED_NAME

    def next_commands(self) -> tuple[str, ...]:
        """Say what to type next, relative to the working directory."""
        return tuple(self._commands())

    def _commands(self) -> Iterator[str]:
        if self.mode == "docker":
            environment = _shown(self.state_dir / env_file.NAME)
            compose = _shown(self.state_dir / COMPOSE_NAME)
            yield f"docker compose --env-file {environment} --file {compose} up --detach --wait"
        found = state_directory()
        elsewhere = found.resolve() != self.state_dir.resolve()
        here = f"AGENT_BRAIN_STATE_DIR={_shown(self.state_dir)} " if elsewhere else ""
        yield f"{here}agent-brain-postgres doctor"


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
