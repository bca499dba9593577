"""What a check found, and what would mend it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from agent_brain_postgres.pool import Connection

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Fix:
    """A repair that `--fix` may make; `title` is what the user is told before."""

    title: str
    carry_out: Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check: what was seen, and the one command or setting that mends it."""

    check: str
    status: Status
    seen: str
    mend: str = ""
    details: tuple[str, ...] = ()
    fix: Fix | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data, for `--json`."""
        return {
            "check": self.check,
            "status": self.status,
            "seen": self.seen,
            "mend": self.mend or None,
            "fixable": self.fix is not None,
            "details": list(self.details),
        }


def ok(check: str, seen: str, *details: str) -> Finding:
    """Report that nothing is wrong."""
    return Finding(check, "ok", seen, details=details)


# What mends everything that `Fix` can.
FIX_IT = "agent-brain-postgres doctor --fix"


def warning(check: str, seen: str, mend: str, fix: Fix | None = None) -> Finding:
    """Report what works but should be different."""
    return Finding(check, "warning", seen, mend, fix=fix)


def failed(check: str, seen: str, mend: str, fix: Fix | None = None) -> Finding:
    """Report what keeps the store from working."""
    return Finding(check, "failed", seen, mend, fix=fix)


def skipped(check: str, seen: str) -> Finding:
    """Report that a check could not be made."""
    return Finding(check, "skipped", seen)
