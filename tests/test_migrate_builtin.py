"""`migrate --from-postgres`: the tables of the core's own PostgreSQL backend.

They are made here as the core makes them (10.7.0, `storage/postgres/schema.py`); what the core
itself has written, and Chroma, are in `core/test_migrate.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from agent_brain_postgres.cli import main

TABLES = """
CREATE TABLE documents (
    chunk_id TEXT PRIMARY KEY,
    document_text TEXT NOT NULL,
    metadata JSONB NOT NULL DEFAULT '{}',
    embedding vector(4),
    tsv tsvector,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW());
CREATE TABLE embedding_metadata (
    id INTEGER PRIMARY KEY DEFAULT 1,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    CONSTRAINT single_row CHECK (id = 1));
"""
COUNT = 250


@pytest.fixture
def source(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A database with the core's tables, which the settings name as well."""
    rng = np.random.default_rng(1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLES)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO documents (chunk_id, document_text, metadata, embedding) "
                "VALUES (%s, %s, %s, %s::vector)",
                [
                    (
                        f"chunk_{i:016x}",
                        f"text {i} ünï",
                        json.dumps({"source": f"/p/{i}.md", "n": i, "tags": ["a", {"b": None}]}),
                        str(rng.standard_normal(4).astype("float32").tolist()),
                    )
                    for i in range(COUNT)
                ],
            )
        connection.execute(
            "INSERT INTO documents (chunk_id, document_text) VALUES ('half written', 'no vector')"
        )
        connection.execute(
            "INSERT INTO embedding_metadata (provider, model, dimensions) "
            "VALUES ('EmbeddingProviderType.OPENAI', 'small', 4)"
        )
    given = conninfo_to_dict(dsn)
    for key, name in (("host", "host"), ("port", "port"), ("dbname", "database"), ("user", "user")):
        if key in given:
            monkeypatch.setenv(f"AGENT_BRAIN_POSTGRES_{name.upper()}", str(given[key]))
    if "password" in given:
        monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PASSWORD", str(given["password"]))
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_POOL_SIZE", "1")
    monkeypatch.chdir(tmp_path)
    return dsn


def migrate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["migrate", *arguments])


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def state(dsn: str) -> list[tuple[Any, ...]]:
    """Everything about the source that a change would show in."""
    return query(
        dsn,
        "SELECT md5(string_agg(d::text || xmin || ctid, ',' ORDER BY chunk_id)), "
        "(SELECT string_agg(e::text || xmin || ctid, ',') FROM public.embedding_metadata e) "
        "FROM public.documents d",
    )


def test_chunks_arrive_as_they_are_and_the_source_stays(source: str) -> None:
    before = state(source)
    done = migrate("--from-postgres")
    assert done.exit_code == 0, done.output
    assert f"Copied {COUNT} chunks" in done.output
    assert "1 chunks have no embedding and are left out" in done.output
    different = query(
        source,
        "SELECT count(*) FROM public.documents s FULL JOIN agent_brain.chunks t USING (chunk_id) "
        "WHERE s.embedding IS NOT NULL AND (s.document_text, s.metadata, s.embedding) "
        "IS DISTINCT FROM (t.document, t.metadata, t.embedding)",
    )
    assert different == [(0,)]
    assert query(source, "SELECT provider, model, dimensions FROM agent_brain.embedding_metadata") == [
        ("openai", "small", 4)
    ]
    assert state(source) == before


def test_a_dry_run_creates_nothing(source: str) -> None:
    done = migrate("--from-postgres", "--dry-run")
    assert done.exit_code == 0, done.output
    assert f"{COUNT} chunks of 4 dimensions" in done.output
    assert "no store yet" in done.output
    assert query(source, "SELECT count(*) FROM pg_namespace WHERE nspname = 'agent_brain'") == [(0,)]


def test_it_goes_on_where_it_ended(source: str) -> None:
    migrate("--from-postgres")
    query(
        source,
        "DELETE FROM agent_brain.chunks WHERE chunk_id IN (SELECT chunk_id FROM "
        "agent_brain.chunks ORDER BY chunk_id OFFSET 100)",
    )
    done = migrate("--from-postgres", "--batch-size", "30")
    assert f"Copied {COUNT - 100} chunks" in done.output
    assert "100 were there already" in done.output


def test_what_differs_is_found_and_replaced_on_demand(source: str) -> None:
    migrate("--from-postgres")
    query(source, "UPDATE public.documents SET document_text = 'edited'")
    done = migrate("--from-postgres")
    assert done.exit_code == 1
    assert "differs between source and target" in done.output
    assert migrate("--from-postgres", "--overwrite").exit_code == 0
    assert query(source, "SELECT DISTINCT document FROM agent_brain.chunks") == [("edited",)]


def test_a_target_of_another_model_is_refused(source: str) -> None:
    migrate("--from-postgres")
    query(source, "UPDATE public.embedding_metadata SET model = 'large'")
    done = migrate("--from-postgres")
    assert done.exit_code == 1
    assert "small" in done.output
    assert "large" in done.output


def test_halfvec_targets_are_compared_within_their_precision(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate("--from-postgres")
    query(source, "ALTER TABLE agent_brain.chunks ALTER embedding TYPE halfvec(4)")
    query(source, "DELETE FROM agent_brain.chunks WHERE chunk_id < 'chunk_0000000000000080'")
    done = migrate("--from-postgres")
    assert done.exit_code == 0, done.output


def test_a_database_without_the_tables_is_named(dsn: str, source: str) -> None:
    query(source, "DROP TABLE public.documents")
    done = migrate("--from-postgres")
    assert done.exit_code == 1
    assert "no table `documents`" in done.output


def test_a_source_that_does_not_answer_is_named_without_its_password(source: str) -> None:
    done = migrate("--from-postgres", "postgresql://u:hidden@127.0.0.1:1/x")
    assert done.exit_code == 1
    assert "cannot connect to the source" in done.output
    assert "hidden" not in done.output


@pytest.mark.parametrize("arguments", [(), ("--from-postgres", "", "--from-chroma", ".")])
def test_exactly_one_source_must_be_given(arguments: tuple[str, ...]) -> None:
    assert migrate(*arguments).exit_code == 2


def test_chroma_without_chromadb_says_where_to_run(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chroma.sqlite3").touch()
    monkeypatch.setitem(__import__("sys").modules, "chromadb", None)
    done = migrate("--from-chroma", str(tmp_path))
    assert done.exit_code == 1
    assert "environment of the server" in done.output


def test_an_index_that_is_due_is_built_though_the_source_is_the_same_database(source: str) -> None:
    query(
        source,
        "INSERT INTO public.documents (chunk_id, document_text, embedding) "
        "SELECT 'more ' || n, 'text', ARRAY[n, 1, n % 7, n % 13]::vector "
        "FROM generate_series(1, 12000) AS n",
    )
    done = migrate("--from-postgres", "--sample", "20")
    assert done.exit_code == 0, done.output
    built = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'chunks\\_hnsw%'"
    assert query(source, built) == [(1,)]
