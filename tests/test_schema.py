"""Tables: created by whoever comes first, checked by everyone."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agent_brain_postgres import PostgresBackend, StorageError
from agent_brain_postgres.errors import SchemaMismatch, SettingsError

from .chunks import make_chunks
from .conftest import MakeBackend, config_for

START = """
import asyncio, sys
from agent_brain_postgres import PostgresBackend, PostgresConfig

async def main():
    config = PostgresConfig(pool_size=1, pool_max=2).with_connection(sys.argv[1], "test")
    backend = PostgresBackend(config, embedding_dimensions=4)
    await backend.initialize()
    await backend.close()

asyncio.run(main())
"""


@pytest.fixture
def empty_dsn(server: str, dsn: str) -> str:
    """The test's database without pgvector."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP EXTENSION vector")
    return dsn


def test_sixteen_processes_that_start_at_once_all_succeed(empty_dsn: str) -> None:
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", START, empty_dsn], stderr=subprocess.PIPE, text=True
        )
        for _ in range(16)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in starting]
    assert ended == [("", 0)] * 16


async def test_initializing_again_is_free_of_statements(
    backend: PostgresBackend, dsn: str
) -> None:
    pool = backend._pool
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA agent_brain CASCADE")  # any look would fail now
    await backend.initialize()
    assert backend._pool is pool


async def test_other_dimensions_fail_at_start_naming_both(
    make_backend: MakeBackend, dsn: str
) -> None:
    await (await make_backend(8)).close()
    with pytest.raises(SchemaMismatch, match=r"8 dimensions.* 16 "):
        await make_backend(16)


async def test_the_column_counts_not_the_meta_table(make_backend: MakeBackend, dsn: str) -> None:
    await (await make_backend(8)).close()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE agent_brain.chunks ALTER embedding TYPE vector(12)")
    with pytest.raises(SchemaMismatch, match="12 dimensions"):
        await make_backend(8)


@pytest.mark.parametrize("version", ["0", "99", "2b"])
async def test_another_schema_version_stops_with_advice(
    make_backend: MakeBackend, dsn: str, version: str
) -> None:
    backend = await make_backend()
    await backend.upsert_documents(*make_chunks(3))
    await backend.close()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE agent_brain.meta SET value = %s WHERE key = 'schema_version'", (version,)
        )
    with pytest.raises(SchemaMismatch, match=f"version {version}.*DROP SCHEMA"):
        await make_backend()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM agent_brain.chunks").fetchone() == (3,)


async def test_two_schemas_share_a_database(make_backend: MakeBackend) -> None:
    one = await make_backend(4, db_schema="Project One")
    two = await make_backend(6, db_schema="project-two")
    await one.upsert_documents(*make_chunks(3, dimensions=4))
    await two.upsert_documents(*make_chunks(5, dimensions=6))
    assert (await one.get_count(), await two.get_count()) == (3, 5)
    await one.reset()
    assert (await one.get_count(), await two.get_count()) == (0, 5)


async def test_nothing_is_found_through_the_search_path(
    empty_dsn: str, make_backend: MakeBackend
) -> None:
    """pgvector in a schema of its own, and a role whose path leads nowhere."""
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Ext Ension"')
        connection.execute('CREATE EXTENSION vector SCHEMA "Ext Ension"')
        database = conninfo_to_dict(empty_dsn)["dbname"]
        connection.execute(f'ALTER DATABASE "{database}" SET search_path = nowhere')
    backend = await make_backend()
    chunks = make_chunks(20)
    await backend.upsert_documents(*chunks)
    assert (await backend.vector_search(chunks.embeddings[3], 1))[0].chunk_id == chunks.ids[3]
    assert await backend.keyword_search("vector index", 3)
    assert await backend.hybrid_search("vector index", chunks.embeddings[3], 3)
    assert await backend.delete_by_metadata({"language": "go"})
    await backend.reset()


async def test_an_unknown_language_lists_the_ones_there_are(make_backend: MakeBackend) -> None:
    with pytest.raises(SettingsError, match=r"klingon.*english.*simple"):
        await make_backend(language="klingon")


async def test_a_custom_language_is_used(make_backend: MakeBackend, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TEXT SEARCH CONFIGURATION public.ours (COPY = german)")
    backend = await make_backend(language="ours")
    await backend.upsert_documents(["a"], [[1.0] * 8], ["viele Häuser"], [{}])
    assert await backend.keyword_search("Haus", 1)


async def test_another_language_waits_for_reset(make_backend: MakeBackend) -> None:
    await (await make_backend(language="english")).close()
    backend = await make_backend(language="german")
    assert backend._store is not None
    assert backend._store.language == "pg_catalog.english"
    await backend.reset()
    assert backend._store.language == "pg_catalog.german"


async def test_a_user_without_rights_learns_the_one_command(
    empty_dsn: str, make_backend: MakeBackend
) -> None:
    role = "abp_plain_" + str(conninfo_to_dict(empty_dsn)["dbname"])[-12:]
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
    try:
        config = config_for(make_conninfo(empty_dsn, user=role))
        backend = PostgresBackend(config, embedding_dimensions=4)
        with pytest.raises(StorageError, match="CREATE EXTENSION vector"):
            await backend.initialize()
        assert not backend.is_initialized
    finally:
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("dimensions", [1, 2, 2000, 2001, 4000, 4001, 16_000])
async def test_every_dimension_can_be_stored_and_searched(
    make_backend: MakeBackend, dimensions: int
) -> None:
    backend = await make_backend(dimensions)
    chunks = make_chunks(12, dimensions=dimensions)
    await backend.upsert_documents(*chunks)
    found = await backend.vector_search(chunks.embeddings[5], 3)
    assert len(found) == 3
    assert found[0].score == pytest.approx(1.0, abs=1e-3)


async def test_reset_leaves_a_clean_initialised_store(
    backend: PostgresBackend, dsn: str
) -> None:
    await backend.upsert_documents(*make_chunks(10))
    await backend.set_embedding_metadata("openai", "m", 8)
    await backend.reset()
    assert backend.is_initialized
    assert await backend.get_count() == 0
    assert await backend.get_embedding_metadata() is None
    assert await backend.upsert_documents(*make_chunks(4)) == 4



async def test_halfvec_storage_halves_the_vectors(make_backend: MakeBackend, dsn: str) -> None:
    sizes = {}
    chunks = make_chunks(200, dimensions=64)
    for kind in ("vector", "halfvec"):
        backend = await make_backend(64, embedding_type=kind, db_schema=kind)
        await backend.upsert_documents(*chunks)
        found = await backend.vector_search(chunks.embeddings[9], 5)
        assert found[0].chunk_id == chunks.ids[9]
        assert await backend.hybrid_search("vector", chunks.embeddings[9], 5)
        with psycopg.connect(dsn) as connection:
            statement = f"SELECT sum(pg_column_size(embedding)) FROM {kind}.chunks"
            (sizes[kind],) = connection.execute(statement).fetchone() or (0,)
        await backend.reset()
    assert sizes["halfvec"] < 0.55 * sizes["vector"]


async def test_the_stored_type_stays_when_the_setting_changes(make_backend: MakeBackend) -> None:
    await (await make_backend(embedding_type="halfvec")).close()
    backend = await make_backend(embedding_type="vector")
    assert await backend.upsert_documents(*make_chunks(5)) == 5
    assert backend._store is not None
    assert backend._store.column == "halfvec"
