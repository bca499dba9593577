"""A PostgreSQL data directory: made by `initdb`, served by `postgres`, stopped by a signal.

`pg_ctl` is not used: it passes paths through a shell unquoted, and its time-out ends a recovery.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from agent_brain_postgres.errors import PostgresStorageError

from .account import Account, open_way
from .binaries import MAJOR_VERSION
from .keeper import SOCKET_PREFIX
from .processes import (
    Postmaster,
    read_postmaster,
    serves,
    wait_for_end,
    wait_for_orphans,
)

SUPERUSER = "postgres"
SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 103  # bytes, the smallest of the systems' (macOS); Linux has 107

_START_SECONDS = 300  # crash recovery of a large store takes its time
_STOP_SECONDS = 60
_LOG_BYTES = 8_000_000

# For a store of one user on one machine: durable, unreachable from the network, quiet.
SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "effective_cache_size": "1GB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "wal_level": "minimal",  # nothing replicates it: index builds need not pass through the log
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "fsync": "on",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",  # statements hold the user's text
    "logging_collector": "off",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The data under `directory`, the programs that serve it and the account they run as.

    Every method but `postmaster` is called by one process at a time (see `leases.exclusively`).
    """

    directory: Path
    installation: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    def postmaster(self) -> Postmaster | None:
        """Give the live server of this data, ready or not."""
        found = read_postmaster(self.data)
        return found if found is not None and serves(found.pid, self.data) else None

    def ensure_running(self) -> Postmaster:
        """Create the data if there is none, start the server if none runs, wait until it is ready.

        The server's settings are given on its command line, so that they follow this version of
        the package rather than the one that created the data.
        """
        if not (self.data / "PG_VERSION").exists():
            self._create()
        self._check_version()
        open_way(self.account, self.data)
        running = self.postmaster()
        if running is not None and running.status == "stopping":
            wait_for_end(running.pid, self.data, _STOP_SECONDS)
            running = None
        if running is None:
            self._clear_remains()
            return self._launch()
        return self._wait_until_ready(running.pid)

    def stop(self) -> None:
        """Stop the server, cutting off whoever is still connected."""
        running = self.postmaster()
        if running is None:
            return
        for how, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 10)):
            os.kill(running.pid, how)
            if wait_for_end(running.pid, self.data, seconds):
                break
        _remove_socket_directory(running.socket_directory)

    def _create(self) -> None:
        """Run `initdb` beside the data and move the result into place: all or nothing."""
        new = self.directory / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self.account.own(new)
        open_way(self.account, new)
        failure = ""
        # The character type decides what counts as a letter and how it is lowered. "C" is ASCII.
        for character_type in ("C.UTF-8", "en_US.UTF-8", "C"):
            made = self.account.run(
                self.installation / "bin" / "initdb",
                *("-D", str(new), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"),
                *("--locale=C", f"--lc-ctype={character_type}"),
            )
            if made.returncode == 0:
                new.rename(self.data)
                return
            failure = _last_lines(made.stderr)
            if "invalid locale name" not in failure:
                break
        raise PostgresStorageError(f"cannot create a PostgreSQL cluster in {self.data}: {failure}")

    def _check_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != MAJOR_VERSION:
            raise PostgresStorageError(
                f"{self.data} was made by PostgreSQL {found}, but the embedded one is "
                f"{MAJOR_VERSION}: choose another directory, or remove this one"
            )

    def _clear_remains(self) -> None:
        """Remove what a killed server left and a new one would trip over.

        PostgreSQL itself sees that the process in `postmaster.pid` is gone, unless the id now
        belongs to another process.
        """
        remains = read_postmaster(self.data)
        wait_for_orphans(self.data, 10)
        if remains is not None:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            _remove_socket_directory(remains.socket_directory)
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.data / name).unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.unlink()

    def _launch(self) -> Postmaster:
        socket_directory = self._socket_directory()
        try:
            return self._launch_with(socket_directory)
        except PostgresStorageError:
            _remove_socket_directory(socket_directory)
            raise

    def _launch_with(self, socket_directory: Path) -> Postmaster:
        settings = SETTINGS | {
            "unix_socket_directories": _quote(socket_directory),
            "unix_socket_permissions": "0700",
            "dynamic_shared_memory_type": _dynamic_shared_memory_type(),
        }
        arguments = [f"--{key}={value}" for key, value in settings.items()]
        # A shell in between makes the server nobody's child: it must outlive us without a trace.
        detach = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
        started = self.account.run(
            *("/bin/sh", "-c", detach, "sh", str(self.log)),
            *(str(self.installation / "bin" / "postgres"), "-D", str(self.data), *arguments),
        )
        if not started.stdout.strip().isdigit():
            raise self._failed(f"did not start ({_last_lines(started.stderr)})")
        return self._wait_until_ready(int(started.stdout))

    def _wait_until_ready(self, pid: int) -> Postmaster:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            found = read_postmaster(self.data)
            if found is not None and found.pid == pid and found.is_ready:
                return found
            if not _exists(pid):
                raise self._failed("did not start")
            time.sleep(0.02)
        raise self._failed(f"was not ready after {_START_SECONDS} seconds")

    def _failed(self, how: str) -> PostgresStorageError:
        try:
            lines = self.log.read_text(errors="replace").rpartition("starting PostgreSQL")[2]
        except OSError:
            lines = ""
        said = _last_lines("\n".join(re.findall(".*(?:FATAL|PANIC|ERROR|signal).*", lines)) or lines)
        return PostgresStorageError(
            f"the embedded PostgreSQL in {self.directory} {how}: {said} (log: {self.log})"
        )

    def _socket_directory(self) -> Path:
        """Choose where the socket goes: with the data, unless libpq could not name it there.

        A socket's path is limited, and libpq takes commas in a host for a list of hosts.
        """
        encoded = os.fsencode(self.data / SOCKET)
        try:
            encoded.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            if len(encoded) <= _SOCKET_PATH_LIMIT and b"," not in encoded:
                return self.data
        made = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=_short_temporary_directory()))
        self.account.own(made)
        return made


def _short_temporary_directory() -> Path:
    usual = Path(tempfile.gettempdir())
    room = _SOCKET_PATH_LIMIT - len(f"/{SOCKET_PREFIX}12345678/{SOCKET}")
    return usual if len(os.fsencode(usual)) <= room else Path("/tmp")  # noqa: S108 - mkdtemp in it


def _remove_socket_directory(directory: Path | None) -> None:
    if directory is not None and directory.name.startswith(SOCKET_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def _quote(path: Path) -> str:
    """Quote a member of a list setting."""
    return '"' + os.fspath(path).replace('"', '""') + '"'


def _dynamic_shared_memory_type() -> str:
    """Avoid /dev/shm where it is small (64 MB in Docker): index builds share more than that."""
    if sys.platform == "linux":
        try:
            status = os.statvfs("/dev/shm")  # noqa: S108 - not written to
        except OSError:
            return "sysv"
        if status.f_bavail * status.f_frsize < 1 << 30:
            return "sysv"
    return "posix"


def _exists(pid: int) -> bool:
    """Say whether a process is there and not a zombie."""
    try:
        os.kill(pid, 0)
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        pass
    return True


def _last_lines(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:]) or "it said nothing"
