"""What the checks know of each other: each adds what it learned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.deploy import env_file
from agent_brain_postgres.deploy.template import COMPOSE_NAME
from agent_brain_postgres.embedded import EmbeddedServer
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.settings_files import Places
from agent_brain_postgres.store import Store

CONNECT_TIMEOUT = 5  # seconds
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass
class Case:
    """A configuration under examination; checks fill in what they find on the way."""

    places: Places
    embedding: Mapping[str, Any] = field(default_factory=dict)  # `embedding:` of the YAML
    config: PostgresConfig | None = None
    server: EmbeddedServer | None = None
    error: Exception | None = None  # why connecting failed
    connection: Connection | None = None
    read_only: bool = False
    extension: tuple[str, tuple[int, ...]] | None = None  # its schema and version
    store: Store | None = None  # set when the tables are there

    @property
    def settings(self) -> PostgresConfig:
        """The settings, once they were loaded."""
        assert self.config is not None
        return self.config

    @property
    def database(self) -> Connection:
        """The connection, once there is one."""
        assert self.connection is not None
        return self.connection

    @property
    def is_local(self) -> bool:
        """Whether the server is meant to run on this machine."""
        return all(
            host in LOOPBACK or host.startswith(("/", "@")) for host, _ in self.settings.addresses()
        )

    async def connect(self) -> None:
        """Try to connect once; what goes wrong is kept in `error`."""
        try:
            self.connection = await psycopg.AsyncConnection.connect(
                self.settings.conninfo(), autocommit=True, connect_timeout=CONNECT_TIMEOUT
            )
        except (psycopg.Error, OSError) as error:
            self.error = error

    async def rows(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query."""
        cursor = await self.database.execute(statement, parameters or None)
        return list(await cursor.fetchall())

    async def row(self, statement: Any, *parameters: Any) -> tuple[Any, ...] | None:
        """Run a query of at most one row."""
        return next(iter(await self.rows(statement, *parameters)), None)

    def psql(self, *statements: str, as_superuser: bool = False) -> str:
        """Give the command that runs statements on this database, by hand."""
        config = self.settings
        host, port = config.addresses()[0]
        words = [word for text in statements for word in ("--command", text)]
        database = ["--dbname", config.database]
        if (inside := self.compose("exec postgres psql")) is not None:
            return f"{inside} {shlex.join(['--username', config.user, *database, *words])}"
        user = "postgres" if as_superuser else config.user
        server = ["psql", "--host", host, "--port", str(port), "--username", user]
        return shlex.join([*server, *database, *words])

    def compose(self, command: str) -> str | None:
        """Give a `docker compose` command for the project's container; None if it has none."""
        directory = self.places.state_directory
        if directory is None or not self.is_local or not (directory / COMPOSE_NAME).is_file():
            return None
        environment = shlex.quote(str(_near(directory / env_file.NAME)))
        file = shlex.quote(str(_near(directory / COMPOSE_NAME)))
        return f"docker compose --env-file {environment} --file {file} {command}"


def _near(path: Path) -> Path:
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path
