"""A use of the embedded server: join it, close it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from agent_brain_postgres.errors import PostgresStorageError

from .account import for_directory, open_tree
from .cluster import SUPERUSER, Cluster
from .keeper import watch
from .leases import Lease, exclusively, has_keeper
from .processes import Postmaster


class EmbeddedServer:
    """A running PostgreSQL that stays up while any handle to it is open.

    `conninfo` is what libpq connects with: a Unix socket that only the owner (and root) can open.
    """

    def __init__(self, cluster: Cluster, lease: Lease, conninfo: str) -> None:
        self.conninfo = conninfo
        self.directory = cluster.directory
        self._cluster = cluster
        self._lease = lease
        self._process = os.getpid()
        self._closing = threading.Lock()
        self._closed = False
        atexit.register(self.close)

    def close(self) -> None:
        """Stop using the server; it stops when nobody else uses it. Never raises twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        if os.getpid() != self._process:
            self._lease.forget()
            return
        with _speaking_plainly(self.directory):
            _leave(self._cluster, self._lease)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<EmbeddedServer {self.directory} {state}>"


def join(directory: Path, database: str, installation: Path) -> EmbeddedServer:
    """Start the server of `directory` unless it runs, and open a handle to it."""
    directory = directory.expanduser().absolute()
    with _speaking_plainly(directory):
        directory.mkdir(parents=True, exist_ok=True)
        directory = directory.resolve()
        account = for_directory(directory)
        open_tree(account, installation)
        cluster = Cluster(directory, installation, account)
        with exclusively(directory, account):
            postmaster = cluster.ensure_running()
            lease = Lease(directory, account)
            if not has_keeper(directory, account):
                watch(directory, postmaster.pid)
        try:
            _create_database(_conninfo(postmaster, "postgres"), database)
        except BaseException:
            _leave(cluster, lease)
            raise
    return EmbeddedServer(cluster, lease, _conninfo(postmaster, database))


def _leave(cluster: Cluster, lease: Lease) -> None:
    if not cluster.directory.exists():  # removed under us; the keeper stops the server
        lease.forget()
        return
    with exclusively(cluster.directory, cluster.account):
        if lease.release():
            cluster.stop()


def _conninfo(postmaster: Postmaster, database: str) -> str:
    host = str(postmaster.socket_directory)
    return make_conninfo(host=host, port=5432, user=SUPERUSER, dbname=database)


def _create_database(conninfo: str, name: str) -> None:
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=30) as connection:
        query = "SELECT FROM pg_database WHERE datname = %s"
        if connection.execute(query, (name,)).fetchone() is None:
            statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(statement)  # unless another process was faster


@contextmanager
def _speaking_plainly(directory: Path) -> Iterator[None]:
    """Turn failures of the file system and of the first connection into `StorageError`s."""
    try:
        yield
    except PermissionError as error:
        raise PostgresStorageError(
            f"the embedded PostgreSQL in {directory} belongs to another user, or its directory is "
            f"not writable ({error}): run as that user, or choose another directory"
        ) from error
    except (OSError, psycopg.Error, ValueError) as error:
        raise PostgresStorageError(f"the embedded PostgreSQL in {directory}: {error}") from error
