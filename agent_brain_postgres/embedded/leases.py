"""Who uses a server: file locks, which the kernel releases however their holder ends.

Three files lie beside the data. Whoever starts or stops the server holds `lock` alone. Every user
of the server holds `users` together with the others; who can have it alone is the last. The keeper
holds `keeper`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .account import Account
from .keeper import KEEPER, LOCK, USERS


@contextmanager
def exclusively(directory: Path, account: Account) -> Iterator[None]:
    """Hold the right to start or stop the server of `directory`, waiting for it."""
    descriptor = _open(directory / LOCK, account)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _unlock(descriptor)


def has_keeper(directory: Path, account: Account) -> bool:
    """Say whether a keeper watches; ask while holding the lock."""
    descriptor = _open(directory / KEEPER, account)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        _unlock(descriptor)
    return False


class Lease:
    """One use of the server. Acquire and release it only while holding the lock."""

    def __init__(self, directory: Path, account: Account) -> None:
        self._descriptor: int | None = _open(directory / USERS, account)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> bool:
        """Give the lease up and say whether nobody else has one."""
        if self._descriptor is None:
            return False
        descriptor, self._descriptor = self._descriptor, None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            _unlock(descriptor)
        return True

    def forget(self) -> None:
        """Close our copy in a forked child; the lease stays with the parent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _unlock(descriptor: int) -> None:
    """Release a lock outright: closing would leave it with a child that was forked meanwhile."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _open(path: Path, account: Account) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if account.switch:
        os.fchown(descriptor, account.uid, account.gid)
    return descriptor
