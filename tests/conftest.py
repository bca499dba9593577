"""A real PostgreSQL for every test: one server a session, one database a test.

The server is the embedded one, or the one of ABP_TEST_DATABASE_URL (never DATABASE_URL), or a
container of the shipped compose template with --docker.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from agent_brain_postgres import PostgresBackend, PostgresConfig
from tests.compose_server import (  # noqa: F401 - fixtures, those that pytest-docker asks for
    compose_server,
    docker_compose_command,
    docker_compose_file,
    docker_setup,
)
from tests.demo_folder import folder  # noqa: F401 - a fixture
from tests.embedded_servers import place, prepared_directory, pristine  # noqa: F401 - fixtures

TEST_URL = "ABP_TEST_DATABASE_URL"
DIMENSIONS = 8

MakeBackend = Callable[..., Awaitable[PostgresBackend]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--docker", action="store_true", help="run on the shipped compose template (pytest-docker)"
    )


def pytest_configure() -> None:
    """Heed Ctrl-C, for the programs that tests interrupt: they inherit whether it is ignored, and
    a shell makes the commands that it runs in the background ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    """Keep the developer's settings and files out of the tests."""
    for name in [*os.environ]:
        if name.startswith(("AGENT_BRAIN_", "PG")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Conninfo of a server on which databases may be created."""
    if request.config.getoption("--docker"):
        yield request.getfixturevalue("compose_server")
        return
    if url := os.environ.get(TEST_URL):
        yield url
        return
    from agent_brain_postgres import embedded

    # Outside pytest's own folder, which other runs clean up; the processes of one pytest-xdist run
    # share the server, and the last of them removes it.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    directory = Path(tempfile.gettempdir()) / f"abp-tests-{run[:12]}"
    with embedded.start(directory, "postgres") as running:
        yield running.conninfo
    if not (directory / "data" / "postmaster.pid").exists():
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(server: str) -> Iterator[str]:
    """Name of a database with pgvector, to be copied by each test."""
    name = f"abp_template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(make_conninfo(server, dbname=name), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    yield name
    _drop(server, name)


def _drop(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


@pytest.fixture
def dsn(server: str, template_database: str) -> Iterator[str]:
    """Conninfo of a fresh database of the test's own."""
    name = f"abp_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template_database)
            )
        )
    yield make_conninfo(server, dbname=name)
    _drop(server, name)


def config_for(dsn: str, **settings: Any) -> PostgresConfig:
    """Settings of a small pool on a database."""
    small: dict[str, Any] = {"pool_size": 1, "pool_max": 4, "connect_attempts": 1}
    return PostgresConfig(**{**small, **settings}).with_connection(dsn, "test")


@pytest.fixture
def config(dsn: str) -> PostgresConfig:
    """Settings for the test's database."""
    return config_for(dsn)


@pytest.fixture
async def make_backend(dsn: str) -> AsyncIterator[MakeBackend]:
    """A function that starts a backend on the test's database; all are closed afterwards."""
    started: list[PostgresBackend] = []

    async def make(dimensions: int | None = DIMENSIONS, **settings: Any) -> PostgresBackend:
        backend = PostgresBackend(config_for(dsn, **settings), embedding_dimensions=dimensions)
        started.append(backend)
        await backend.initialize()
        return backend

    yield make
    for backend in started:
        await backend.close()


@pytest.fixture
async def backend(make_backend: MakeBackend) -> PostgresBackend:
    """An initialised backend with 8 dimensions."""
    return await make_backend()


@pytest.fixture
def project_root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
