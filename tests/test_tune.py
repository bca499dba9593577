"""`agent-brain-postgres tune`: what it measures, recommends and stores."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from agent_brain_postgres import PostgresBackend, tune
from agent_brain_postgres.cli import main
from tests.conftest import MakeBackend, config_for
from tests.nearest import fill, make_vectors

ROWS, DIMENSIONS = 3_000, 16


@pytest.fixture
def settings(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the command at the test's database."""
    for name, value in conninfo_to_dict(dsn).items():
        key = {"dbname": "DATABASE"}.get(name, name.upper())
        monkeypatch.setenv(f"AGENT_BRAIN_POSTGRES_{key}", str(value))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def filled(dsn: str) -> None:
    """A store with an index."""
    asyncio.run(_fill(dsn, ROWS))


async def _fill(dsn: str, rows: int) -> None:
    backend = PostgresBackend(config_for(dsn), embedding_dimensions=DIMENSIONS)
    try:
        await backend.initialize()
        await fill(backend, make_vectors(rows, DIMENSIONS))
        await backend.wait_until_indexed()
    finally:
        await backend.close()


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tune", "--queries", "10", *arguments])


def _stored(dsn: str) -> str | None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT value FROM agent_brain.meta WHERE key = 'ef_search'"
        ).fetchone()
    return row[0] if row is not None else None


@pytest.mark.usefixtures("settings", "filled")
def test_it_prints_a_table_and_a_plot_and_stores_nothing_unasked(dsn: str) -> None:
    done = _run()
    assert done.exit_code == 0, done.output
    assert "recall@10" in done.output
    assert "recommended" in done.output
    assert "└─" in done.output
    assert _stored(dsn) is None


@pytest.mark.usefixtures("settings", "filled")
def test_apply_stores_the_recommended_value(dsn: str) -> None:
    done = _run("--json", "--apply")
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert _stored(dsn) == str(document["recommended"])
    assert {"ef_search", "recall", "p50", "p95"} == set(document["measured"][0])


@pytest.mark.usefixtures("settings", "filled")
def test_automatic_forgets_the_value(dsn: str) -> None:
    _run("--apply")
    assert _run("--automatic").exit_code == 0
    assert _stored(dsn) is None


@pytest.mark.usefixtures("settings", "filled")
def test_the_setting_is_said_to_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_HNSW_EF_SEARCH", "77")
    assert "hnsw_ef_search = 77" in _run("--apply").output


@pytest.mark.usefixtures("settings")
def test_a_small_store_has_nothing_to_tune(dsn: str) -> None:
    asyncio.run(_fill(dsn, 20))
    done = _run()
    assert done.exit_code == 0
    assert "nothing to tune" in done.output


async def test_searches_use_the_stored_value_unless_it_is_set(
    make_backend: MakeBackend, dsn: str
) -> None:
    first = await make_backend(DIMENSIONS)
    pool, store = first._opened()
    async with pool.connection() as connection:
        await tune.apply(connection, store, 123)
    tuned = await make_backend(DIMENSIONS)
    configured = await make_backend(DIMENSIONS, hnsw_ef_search=45)
    for backend, expected in ((tuned, 123), (configured, 45)):
        await backend.wait_until_indexed()
        assert backend._opened()[1].estimates.ef_search == expected


def test_the_smallest_value_that_is_accurate_enough_is_recommended() -> None:
    measured = [
        tune.Measured(20, 0.90, 0.2, 0.3),
        tune.Measured(40, 0.975, 0.3, 0.4),
        tune.Measured(80, 0.99, 0.5, 0.6),
    ]
    assert tune.recommend(measured, 0.97).ef_search == 40
    assert tune.recommend(measured, 0.999).ef_search == 80
