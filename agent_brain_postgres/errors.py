"""Every exception this package raises, and the one translation from the driver's errors.

Inside the running core `StorageError` is the core's own class, so that its `except` clauses
catch ours; elsewhere it is defined here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

BACKEND = "postgres"

_core_protocol = sys.modules.get("agent_brain_server.storage.protocol")
_core_providers = sys.modules.get("agent_brain_server.providers.exceptions")


class _StorageError(Exception):
    """The storage backend could not do what was asked."""

    def __init__(self, message: str, backend: str | None = BACKEND) -> None:
        self.message = message
        self.backend = backend
        super().__init__(message)


_StorageError.__name__ = _StorageError.__qualname__ = "StorageError"

if TYPE_CHECKING:
    StorageError = _StorageError
else:
    StorageError = getattr(_core_protocol, "StorageError", _StorageError)


class PostgresStorageError(StorageError):
    """A `StorageError` of this backend."""

    def __init__(self, message: str, backend: str | None = BACKEND) -> None:
        super().__init__(message, backend)


class SettingsError(PostgresStorageError, ValueError):
    """A setting is wrong: the message names its source, the key, the value and what is allowed."""


class ConnectionFailed(PostgresStorageError):
    """The server cannot be reached, or refused the connection.

    `waiting_helps` says whether the same attempt may succeed later.
    """

    def __init__(self, message: str, *, waiting_helps: bool = False) -> None:
        super().__init__(message)
        self.waiting_helps = waiting_helps


class SchemaMismatch(PostgresStorageError):
    """The tables in the database are not the ones this configuration needs."""


class DeployError(PostgresStorageError):
    """The files of a deployment cannot be read, written or reconciled."""


class InvalidFilter(PostgresStorageError):
    """A `where` filter is malformed: the message names the operator or key."""


class InvalidInput(PostgresStorageError, ValueError):
    """An argument is refused before anything is written."""


if TYPE_CHECKING:

    class ProviderMismatchError(StorageError):
        """The store holds embeddings of another provider, model or dimension."""

        def __init__(
            self,
            current_provider: str,
            current_model: str,
            indexed_provider: str,
            indexed_model: str,
        ) -> None: ...
elif _core_providers is not None:
    ProviderMismatchError = _core_providers.ProviderMismatchError
else:

    class ProviderMismatchError(PostgresStorageError):
        """The store holds embeddings of another provider, model or dimension."""

        def __init__(
            self,
            current_provider: str,
            current_model: str,
            indexed_provider: str,
            indexed_model: str,
        ) -> None:
            self.current_provider = current_provider
            self.current_model = current_model
            self.indexed_provider = indexed_provider
            self.indexed_model = indexed_model
            super().__init__(
                f"the store was indexed with {indexed_provider}/{indexed_model}, but the settings "
                f"say {current_provider}/{current_model}; go back to the former, or reset the "
                "store and index again"
            )


# SQLSTATE, or its two-character class -> what happened, and what mends it.
_ADVICE: dict[str, str] = {
    "08": "the connection to the database was lost; it is opened again by the next call",
    "22021": "the text cannot be stored in the database's encoding; use a UTF8 database",
    "25006": "the database is read-only (a standby, or default_transaction_read_only is on); "
    "point the settings at the primary",
    "28": "the server refused the login; check user, password and pg_hba.conf",
    "3D000": "the database does not exist; create it, or correct `database`",
    "3F000": "the schema is missing; restart the server process, which creates it",
    "40": "concurrent transactions collided several times; try again",
    "42501": "the database user lacks a privilege; grant it, or connect as the tables' owner",
    "42P01": "a table is missing; it was dropped while in use: restart, or call reset()",
    "42704": "a type or text search configuration is missing on the server",
    "53100": "the server's disk is full; free some space",
    "53200": "the server is out of memory; lower maintenance_work_mem or the batch size",
    "53300": "the server has no connection left; lower pool_max, or raise max_connections",
    "53": "the server is out of a resource",
    "54": "a limit of PostgreSQL was exceeded",
    "57014": "the statement was cancelled; raise statement_timeout if that was the reason",
    "57": "the server is shutting down or starting up; try again",
    "58": "the server failed to read or write its files; see its log",
    "XX": "internal error of the server; see its log",
}


def _advice(sqlstate: str) -> str | None:
    return _ADVICE.get(sqlstate) or _ADVICE.get(sqlstate[:2])


def translate(error: BaseException, doing: str) -> StorageError:
    """Say in this package's terms what a driver or pool error means, by its SQLSTATE.

    The server's own first line is kept: it names tables and columns, never a parameter's value
    (details, which may quote rows, are left out).
    """
    if isinstance(error, PoolTimeout | TooManyRequests):
        return ConnectionFailed(
            f"{doing}: no free connection ({error}); raise pool_max or pool_timeout",
            waiting_helps=True,
        )
    if isinstance(error, PoolClosed):
        return ConnectionFailed(f"{doing}: the backend is closed; call initialize() first")
    if isinstance(error, psycopg.Error) and error.sqlstate:
        said = error.diag.message_primary or type(error).__name__
        advice = _advice(error.sqlstate)
        ending = f"; {advice}" if advice else ""
        return PostgresStorageError(f"{doing}: {said} (SQLSTATE {error.sqlstate}){ending}")
    if isinstance(error, psycopg.OperationalError):
        return ConnectionFailed(f"{doing}: {_ADVICE['08']} ({error})", waiting_helps=True)
    return PostgresStorageError(f"{doing}: {error}")


P = ParamSpec("P")
R = TypeVar("R")


def translated(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Let only `StorageError`s (and cancellation) leave a coroutine function."""

    @functools.wraps(method)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except (psycopg.Error, PoolTimeout, PoolClosed, TooManyRequests, OSError) as error:
            raise translate(error, method.__name__) from error

    return wrapper


# How a failed connection reads, whether waiting can help, and what mends it; the first match wins.
# Such a failure carries no SQLSTATE (libpq does not expose it), hence the text; libpq's own part
# of it is never localised in psycopg's binary wheels.
_STARTING = "it is starting up, shutting down or full"
_PASSWORD = "set AGENT_BRAIN_POSTGRES_PASSWORD, or `password`"  # noqa: S105 - advice, no password
_CONNECTION_FAILURES: tuple[tuple[str, bool, str], ...] = (
    ("the database system is", True, _STARTING),
    ("too many clients", True, "raise max_connections, or lower pool_max"),
    ("remaining connection slots", True, "raise max_connections, or lower pool_max"),
    ("password authentication failed", False, f"wrong user or password: {_PASSWORD}"),
    ("no password supplied", False, f"the server wants a password: {_PASSWORD}"),
    ("no pg_hba.conf entry", False, "pg_hba.conf does not admit this user from here; where it "
     "asks for TLS, set ssl_mode: require"),
    ("certificate", False, "the TLS certificate was not accepted: check ssl_root_cert, or choose "
     "another ssl_mode"),
    ("server does not support SSL", False, "the server has no TLS: turn it on there, or set "
     "ssl_mode: prefer"),
    ("SSL error", False, "the TLS handshake failed: check ssl_mode and the certificates"),
    ("role ", False, "create the role, or correct `user`"),
    ("database ", False, "create the database, or correct `database`"),
    ("Name or service not known", False, "the host name does not resolve: correct `host`"),
    ("unsupported startup parameter", False, "PgBouncer stands in between: set pgbouncer: true"),
    ("FATAL", False, "the server refused; see its message"),
)


def connection_failed(error: Exception, target: str) -> ConnectionFailed:
    """Classify a failed connection attempt to `target` (host, port, database; no secret)."""
    text = " ".join(str(error).split())
    unreachable = ("", True, "is PostgreSQL running there?")
    matches = (failure for failure in _CONNECTION_FAILURES if failure[0] in text)
    _, waiting_helps, advice = next(matches, unreachable)
    return ConnectionFailed(
        f"cannot connect to {target}: {advice} ({text})", waiting_helps=waiting_helps
    )
