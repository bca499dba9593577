from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from agent_brain_postgres.filters import compile_where
from tests.filter_queries import Connection, Metadata


@pytest.fixture
def corpus(dsn: str) -> Iterator[Connection]:
    """Give a connection to a database with 5,000 rows of the core's kind of metadata."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            """
            CREATE TABLE chunks AS
            SELECT n AS chunk_id, jsonb_build_object(
                'chunk_id', 'chunk_' || md5(n::text), 'source', '/src/' || n / 10 || '.py',
                'source_type', CASE WHEN n % 100 = 0 THEN 'doc' ELSE 'code' END,
                'language', 'language ' || n % 200, 'start_line', n % 1000,
                'a.b', n, 'git', jsonb_build_object('author', jsonb_build_object('id', n)),
                'imports', jsonb_build_array('os', 'module ' || n), 'content', 'text ' || n
            ) AS metadata FROM generate_series(1, 5000) AS n
            """
        )
        connection.execute("CREATE INDEX chunks_metadata ON chunks USING gin (metadata jsonb_path_ops)")
        connection.execute("VACUUM ANALYZE chunks")
        yield connection


def plan(connection: Connection, where: Metadata) -> str:
    compiled = compile_where(where)
    statement = sql.SQL("EXPLAIN SELECT chunk_id FROM chunks WHERE {}").format(compiled.sql)
    return "\n".join(line for (line,) in connection.execute(statement, compiled.params))


@pytest.mark.parametrize(
    "where",
    [
        {"source": "/src/7.py"},
        {"source": {"$eq": "/src/7.py"}},
        {"start_line": 7, "source_type": "code"},
        {"imports": {"$eq": ["os", "module 7"]}},
        {"language": {"$in": ["language 1", "language 2", "language 3"]}},
        {"source": {"$in": [f"/src/{n}.py" for n in range(20)]}},
        {"imports": {"$contains": 7}},
        {"git.author.id": 7},
        {"a.b": 7},
        {
            "$and": [
                {"source_type": {"$in": ["code", "doc"]}},
                {"language": {"$in": ["language 1"]}},
            ]
        },
        {"$or": [{"source": "/src/7.py"}, {"language": "language 8", "start_line": {"$gt": 5}}]},
        {"source": "/src/7.py", "content": {"$contains": "text"}},
        {"source": "/src/7.py", "language": {"$nin": [f"language {n}" for n in range(100)]}},
    ],
)
def test_the_gin_index_serves(corpus: Connection, where: Metadata) -> None:
    text = plan(corpus, where)
    assert "Bitmap Index Scan on chunks_metadata" in text
    assert "Seq Scan" not in text


def test_many_values_are_hashed_once(corpus: Connection) -> None:
    assert "hashed SubPlan" in plan(corpus, {"start_line": {"$in": [*range(1000)]}})
