"""Through PgBouncer in transaction mode: no session state, no prepared statements."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agent_brain_postgres import PostgresBackend, StorageError

from .chunks import make_chunks
from .conftest import config_for
from .servers import free_port

PROGRAM = shutil.which("pgbouncer")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"
)

SERVER_CONNECTIONS = 2


@pytest.fixture
def bouncer(dsn: str) -> Iterator[str]:
    """Conninfo of PgBouncer in front of the test's database, two server connections wide."""
    assert PROGRAM is not None
    target = conninfo_to_dict(dsn)
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)  # the program drops root's rights
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={target['host']} port={target.get('port') or 5432} "
            f"user={target['user']}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n"
            f"unix_socket_dir =\nquery_wait_timeout = 20\nlogfile = {folder / 'log'}\n"
        )
        settings.chmod(0o644)
        # It refuses to run as root; the server's own user may reach the server's socket.
        owner = pwd.getpwuid(Path(str(target["host"])).stat().st_uid).pw_name
        user = ("-u", owner) if os.geteuid() == 0 else ()
        process = subprocess.Popen(
            [PROGRAM, "-q", *user, str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        through = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable")
        try:
            _wait_for(through, process)
            yield through
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(conninfo: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(50):
        assert process.poll() is None, "pgbouncer ended"
        try:
            psycopg.connect(conninfo, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError("pgbouncer does not answer")


async def test_everything_works_with_many_clients_on_two_connections(bouncer: str) -> None:
    backend = PostgresBackend(
        config_for(bouncer, pgbouncer=True, pool_size=6, pool_max=6), embedding_dimensions=8
    )
    await backend.initialize()
    chunks = make_chunks(400)
    await asyncio.gather(
        *(
            backend.upsert_documents(*(column[i::4] for column in chunks))
            for i in range(4)
        )
    )
    assert await backend.get_count() == 400
    for _ in range(8):
        found = await asyncio.gather(
            *(backend.vector_search(chunks.embeddings[i], 3) for i in range(10)),
            *(backend.keyword_search("vector index", 3) for _ in range(10)),
            *(backend.hybrid_search("vector", chunks.embeddings[i], 60) for i in range(10)),
        )
        assert [r[0].chunk_id for r in found[:10]] == chunks.ids[:10]
        assert all(found)
    await backend.wait_until_indexed(30)
    assert await backend.delete_by_metadata({"language": "go"})
    assert (await backend.health())["status"] == "healthy"
    await backend.reset()
    await backend.close()


async def test_no_setting_is_left_behind_in_a_server_connection(bouncer: str, dsn: str) -> None:
    backend = PostgresBackend(config_for(bouncer, pgbouncer=True), embedding_dimensions=8)
    await backend.initialize()
    chunks = make_chunks(50)
    await backend.upsert_documents(*chunks)
    await asyncio.gather(*(backend.vector_search(chunks.embeddings[0], 200) for _ in range(8)))
    await asyncio.gather(
        *(backend.hybrid_search("vector", chunks.embeddings[0], 90) for _ in range(8))
    )
    with psycopg.connect(bouncer, prepare_threshold=None, autocommit=True) as connection:
        for _ in range(2 * SERVER_CONNECTIONS):
            changed = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE source = 'session' "
                "AND (name LIKE 'hnsw%' OR name IN ('statement_timeout', 'jit', 'search_path'))"
            ).fetchall()
            assert changed == []
            assert connection.execute("SELECT * FROM pg_prepared_statements").fetchall() == []
    await backend.close()


async def test_without_the_setting_the_refusal_is_an_error_in_words(bouncer: str) -> None:
    backend = PostgresBackend(config_for(bouncer), embedding_dimensions=8)
    with pytest.raises(StorageError, match="pgbouncer"):
        await backend.initialize()
