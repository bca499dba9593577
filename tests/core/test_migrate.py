"""`migrate` from the stores that the real core has written."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .cluster import Cluster
from .harness import SERVE, Project, running

QUESTION = "how are escapes in a JSON string decoded"


def digest(directory: Path) -> dict[str, str]:
    """Hash every file, so that any change of the source is seen."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def chroma(project: Project) -> tuple[Path, int, list[dict[str, Any]]]:
    """A Chroma store of the core's own making, the number of its chunks, and an answer."""
    variant = replace(project, storage={"backend": "chroma"}, state_name=".state-chroma")
    with running(variant) as server:
        assert server.api.index(project.docs)["status"] == "done"
        answer = server.api.query(QUESTION, mode="vector")
        count = server.api.count()
    # The core opens this store before it knows its state directory, hence in the working one.
    return variant.workdir / "chroma_db", count, answer


def migrate(
    project: Project, *arguments: str | Path, check: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    project.write_config()
    done = subprocess.run(
        [sys.executable, "-m", "agent_brain_postgres", "migrate", *map(str, arguments)],
        env=project.environment() | variables,
        cwd=project.workdir,
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def target(project: Project, cluster: Cluster) -> Project:
    """The same project on an empty database."""
    section = project.storage["postgres"] | {"database": cluster.create_database()}
    return replace(project, storage=project.storage | {"postgres": section})


def rows(cluster: Cluster, target: Project) -> int:
    with cluster.connect(target.storage["postgres"]["database"]) as connection:
        if connection.execute("SELECT to_regclass('agent_brain.chunks')").fetchone() == (None,):
            return 0
        row = connection.execute("SELECT count(*) FROM agent_brain.chunks").fetchone()
    assert row is not None
    return int(row[0])


def test_a_dry_run_writes_nothing(target: Project, cluster: Cluster, chroma: Any) -> None:
    directory, count, _ = chroma
    before = digest(directory)
    done = migrate(target, "--from-chroma", directory, "--dry-run")
    assert f"{count:,} chunks of 256 dimensions" in done.stdout
    assert "nothing was written" in done.stdout
    with cluster.connect(target.storage["postgres"]["database"]) as connection:
        schemas = connection.execute(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'agent_brain'"
        ).fetchone()
    assert schemas == (0,)
    assert digest(directory) == before


def test_chroma_is_copied_and_answers_alike(
    target: Project, cluster: Cluster, chroma: Any
) -> None:
    directory, count, answer = chroma
    before = digest(directory)
    done = migrate(target, "--from-chroma", directory)
    assert f"Copied {count:,} chunks" in done.stdout
    assert digest(directory) == before
    assert rows(cluster, target) == count

    with running(target, SERVE) as server:
        ours = server.api.query(QUESTION, mode="vector")
        # Chroma's index misses some of so many chunks; what it finds is scored the same.
        for mine, theirs in zip(ours, answer, strict=True):
            assert mine["score"] >= theirs["score"] - 1e-3
        found = {result["chunk_id"]: result for result in answer}
        shared = [result for result in ours if result["chunk_id"] in found]
        assert len(shared) > len(answer) / 2
        for result in shared:
            assert result["score"] == pytest.approx(found[result["chunk_id"]]["score"], abs=1e-3)
            assert result["metadata"] == found[result["chunk_id"]]["metadata"]
        # The model is known, so indexing goes on with it and refuses another.
        assert server.api.index(target.docs)["status"] == "done"
        assert server.api.count() == count


def test_a_second_run_copies_only_what_is_missing(
    target: Project, cluster: Cluster, chroma: Any
) -> None:
    directory, count, _ = chroma
    migrate(target, "--from-chroma", directory)
    with cluster.connect(target.storage["postgres"]["database"]) as connection:
        connection.execute(
            "DELETE FROM agent_brain.chunks WHERE chunk_id IN "
            "(SELECT chunk_id FROM agent_brain.chunks LIMIT 7)"
        )
    done = migrate(target, "--from-chroma", directory)
    assert "Copied 7 chunks" in done.stdout
    assert f"{count - 7:,} were there already" in done.stdout


def test_a_chunk_that_differs_is_found_and_replaced_on_demand(
    target: Project, cluster: Cluster, chroma: Any
) -> None:
    directory, _, _ = chroma
    migrate(target, "--from-chroma", directory)
    with cluster.connect(target.storage["postgres"]["database"]) as connection:
        connection.execute(
            "UPDATE agent_brain.chunks SET fingerprint = '\\x00', "
            "embedding = (SELECT embedding FROM agent_brain.chunks ORDER BY chunk_id LIMIT 1)"
        )
    done = migrate(target, "--from-chroma", directory, check=False)
    assert done.returncode == 1
    assert "differs between source and target" in done.stderr
    assert "Traceback" not in done.stderr
    migrate(target, "--from-chroma", directory, "--overwrite")


def test_a_project_directory_will_do(
    target: Project, chroma: Any, tmp_path: Path, cluster: Cluster
) -> None:
    directory, count, _ = chroma
    place = tmp_path / "project" / ".agent-brain" / "data"
    place.mkdir(parents=True)
    (place / "chroma_db").symlink_to(directory, target_is_directory=True)
    migrate(target, "--from-chroma", tmp_path / "project")
    assert rows(cluster, target) == count


def test_another_model_in_the_target_is_refused(target: Project, chroma: Any) -> None:
    directory, _, _ = chroma
    other = replace(target, model="standin-256-other-256")
    with running(other, SERVE) as server:
        assert server.api.index(target.docs, force=True)["status"] == "done"
    done = migrate(target, "--from-chroma", directory, check=False)
    assert done.returncode == 1
    assert "standin-256-other-256" in done.stderr


def test_a_directory_without_a_store_is_named(target: Project, tmp_path: Path) -> None:
    done = migrate(target, "--from-chroma", tmp_path, check=False)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_chroma_cannot_read_is_named(target: Project, tmp_path: Path) -> None:
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database, but long enough for a page" * 200)
    done = migrate(target, "--from-chroma", tmp_path, check=False)
    assert done.returncode == 1
    assert f"Chroma cannot read {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A store of 20,000 chunks, made by Chroma's client."""
    directory = tmp_path_factory.mktemp("large") / "chroma_db"
    code = """
import sys, numpy as np, chromadb
client = chromadb.PersistentClient(sys.argv[1])
collection = client.create_collection("agent_brain_collection", metadata={"hnsw:space": "cosine"})
rng = np.random.default_rng(1)
for start in range(0, 20_000, 5_000):
    ids = [f"chunk_{i:016x}" for i in range(start, start + 5_000)]
    vectors = rng.standard_normal((5_000, 32)).astype("float32")
    collection.add(ids=ids, embeddings=vectors, documents=[f"text {i}" for i in ids],
                   metadatas=[{"source": i, "n": 1} for i in ids])
"""
    subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        check=True,
        env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
        capture_output=True,
    )
    return directory, 20_000


def _heed_interruptions() -> None:
    """Undo what a shell does to the commands that it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_copy_goes_on_where_it_ended(
    target: Project, cluster: Cluster, large: tuple[Path, int]
) -> None:
    directory, count = large
    target.write_config()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "agent_brain_postgres", "migrate"),
            *("--from-chroma", str(directory), "--batch-size", "500"),
        ],
        env=target.environment(),
        cwd=target.workdir,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_heed_interruptions,
    )
    deadline = time.monotonic() + 120
    while rows(cluster, target) < 1_000:
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    already = rows(cluster, target)
    assert 1_000 <= already < count
    assert already % 500 == 0

    done = migrate(target, "--from-chroma", directory)
    assert f"Copied {count - already:,} chunks" in done.stdout
    assert f"{already:,} were there already" in done.stdout
    assert rows(cluster, target) == count


async def test_vectors_arrive_as_chroma_gives_them(
    target: Project, cluster: Cluster, chroma: Any
) -> None:
    from pgvector.psycopg import register_vector

    from agent_brain_postgres.migrate.chroma import ChromaSource

    directory, _, _ = chroma
    migrate(target, "--from-chroma", directory)
    source = ChromaSource(directory)
    try:
        ids = next(iter(source.ids(50)))
        expected = source.rows(ids)
    finally:
        source.close()
    with cluster.connect(target.storage["postgres"]["database"]) as connection:
        register_vector(connection)
        for chunk_id, vector, text, metadata in zip(
            expected.ids, expected.embeddings, expected.texts, expected.metadatas, strict=True
        ):
            row = connection.execute(
                "SELECT document, metadata, embedding FROM agent_brain.chunks WHERE chunk_id = %s",
                [chunk_id],
            ).fetchone()
            assert row is not None
            assert row[:2] == (text.replace("\0", ""), metadata)
            stored = row[2].to_list() if hasattr(row[2], "to_list") else row[2]
            assert np.array_equal(np.asarray(stored, dtype=np.float32), vector)


def test_the_built_in_postgres_backend_is_copied(
    target: Project, cluster: Cluster, project: Project
) -> None:
    pytest.importorskip("asyncpg", reason="the core's own backend needs its extra `postgres`")
    database = target.storage["postgres"]["database"]
    section = target.storage["postgres"] | cluster.plain_login()
    built_in = replace(
        target,
        model="standin-768",  # what the core says of any model of Ollama's that it does not know
        storage={"backend": "postgres", "postgres": section},
        state_name=".state-builtin",
    )
    with running(built_in, BUILT_IN) as server:
        assert server.api.index(project.docs)["status"] == "done"
        count = server.api.count()
        answer = server.api.query(QUESTION, mode="vector")
    before = table_digest(cluster, database)
    done = migrate(replace(target, model="standin-768"), "--from-postgres")
    assert f"Copied {count:,} chunks" in done.stdout
    assert table_digest(cluster, database) == before
    with running(replace(target, model="standin-768"), SERVE) as server:
        ours = server.api.query(QUESTION, mode="vector")
        assert [r["chunk_id"] for r in ours] == [r["chunk_id"] for r in answer]


BUILT_IN = (
    "-c",
    "import sys; sys.meta_path[:] = [f for f in sys.meta_path "
    "if type(f).__name__ != 'AgentBrainPostgresFinder']; "
    "from agent_brain_server.api.main import cli; cli()",
)


def table_digest(cluster: Cluster, database: str) -> Any:
    with cluster.connect(database) as connection:
        return connection.execute(
            "SELECT count(*), md5(string_agg(d::text, ',' ORDER BY chunk_id)), "
            "(SELECT string_agg(xmin::text, ',') FROM public.embedding_metadata) "
            "FROM public.documents d"
        ).fetchone()
