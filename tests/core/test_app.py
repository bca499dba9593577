"""The core's FastAPI application on this backend, with its lifespan, inside this process."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from agent_brain_postgres import core

from .cluster import Cluster
from .harness import Api, Project
from .standin import embed

MODES = ("vector", "bm25", "hybrid", "multi")
QUESTION = "how are escapes in a JSON string decoded"


@pytest.fixture(scope="module")
def api(project: Project) -> Iterator[Api]:
    """The application, started as an embedding application would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.workdir)
        for name, value in project.environment().items():
            patch.setenv(name, value)
        from agent_brain_server.config import provider_config, settings
        from agent_brain_server.storage import factory

        patch.setattr(settings, "AGENT_BRAIN_STATE_DIR", str(project.state))
        provider_config.clear_settings_cache()
        factory.reset_storage_backend_cache()
        core.install()
        from agent_brain_server.api.main import app

        with TestClient(app) as client:
            yield Api(client)
        factory.reset_storage_backend_cache()
        provider_config.clear_settings_cache()
        core.uninstall()


@pytest.fixture(scope="module")
def backend(api: Api) -> Any:
    app: Any = api.client.app  # type: ignore[attr-defined]
    return app.state.storage_backend


@pytest.fixture(scope="module")
def indexed(api: Api, project: Project) -> dict[str, Any]:
    """The job that indexed the corpus."""
    job = api.index(project.docs)
    assert job["status"] == "done", job
    return job


@pytest.fixture
def folder(api: Api, project: Project, indexed: dict[str, Any]) -> Iterator[Path]:
    """A small indexed folder that a test may change."""
    path = project.root / f"notes-{uuid.uuid4().hex[:6]}"
    path.mkdir()
    (path / "walrus.md").write_text("# Walrus\n\nThe walrus rests on drifting ice floes.\n")
    (path / "heron.md").write_text("# Heron\n\nThe heron stands in shallow water.\n")
    (path / "rotor.py").write_text("def spin_rotor(speed):\n    return speed * 2\n")
    assert api.index(path)["status"] == "done"
    yield path
    if any(f["folder_path"] == str(path) for f in folders(api)):
        api.remove_folder(path)
    shutil.rmtree(path)


def folders(api: Api) -> list[dict[str, Any]]:
    return list(api.get("/index/folders/")["folders"])


def sources(results: list[dict[str, Any]]) -> list[str]:
    return [Path(result["source"]).name for result in results]


def connections(cluster: Cluster, project: Project) -> int:
    with cluster.connect("postgres") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s",
            [project.storage["postgres"]["database"]],
        ).fetchone()
    assert row is not None
    return int(row[0])


class TestIdentity:
    def test_the_backend_is_this_one_and_satisfies_the_protocol(self, backend: Any) -> None:
        from agent_brain_server.storage.protocol import StorageBackendProtocol

        assert type(backend).__module__ == "agent_brain_postgres.core.shim"
        assert isinstance(backend, StorageBackendProtocol)

    async def test_chunks_looked_up_are_the_cores_own_class(
        self, api: Api, indexed: dict[str, Any]
    ) -> None:
        from agent_brain_server.models.query import ChunkRecord

        from agent_brain_postgres import chunk_record

        record = chunk_record.create("chunk_1", "text", {"source": "/a/b.md"})
        assert isinstance(record, ChunkRecord)

    def test_errors_and_results_are_the_cores_own_classes(self, backend: Any) -> None:
        from agent_brain_server.providers.exceptions import ProviderMismatchError
        from agent_brain_server.storage.protocol import EmbeddingMetadata, SearchResult

        import agent_brain_postgres
        from agent_brain_postgres import vectors

        stored = EmbeddingMetadata("openai", "small", 8)
        with pytest.raises(ProviderMismatchError):
            backend.validate_embedding_compatibility("openai", "large", 8, stored)
        assert agent_brain_postgres.SearchResult is SearchResult
        assert getattr(vectors, "SearchResult", SearchResult) is SearchResult


class TestIndex:
    def test_every_chunk_is_stored(self, api: Api, indexed: dict[str, Any]) -> None:
        assert indexed["total_chunks"] > 100
        assert api.count() == indexed["total_chunks"]
        assert api.get("/query/count")["ready"] is True

    def test_the_folder_is_listed(self, api: Api, project: Project, indexed: Any) -> None:
        entry = next(f for f in folders(api) if f["folder_path"] == str(project.docs))
        assert entry["chunk_count"] == indexed["total_chunks"]

    def test_edits_and_deletions_replace_exactly_what_changed(
        self, api: Api, folder: Path
    ) -> None:
        before = api.count()
        (folder / "walrus.md").write_text("# Walrus\n\nThe walrus sleeps upright at sea.\n")
        (folder / "heron.md").unlink()
        job = api.index(folder)
        summary = job["eviction_summary"] or {}
        if summary:  # the core calls a job failed whose folder shrank: its own rule
            assert [Path(p).name for p in summary["files_changed"]] == ["walrus.md"]
        assert api.count() == before - 1
        found = api.query("where does the walrus sleep", mode="bm25", top_k=1)
        assert "sleeps upright" in found[0]["text"]
        assert "heron.md" not in sources(api.query("heron", mode="bm25"))
        assert "rotor.py" in sources(api.query("spin rotor", mode="bm25"))

    def test_an_unchanged_folder_is_not_stored_again(self, api: Api, folder: Path) -> None:
        before = api.count()
        job = api.index(folder)
        assert job["status"] == "done"
        assert job["eviction_summary"]["chunks_to_create"] == 0
        assert api.count() == before

    def test_force_stores_a_folder_again_without_duplicates(self, api: Api, folder: Path) -> None:
        before = api.count()
        job = api.index(folder, force=True)
        assert job["status"] == "done", job
        assert api.count() == before

    def test_a_folder_is_removed_with_its_chunks(self, api: Api, folder: Path) -> None:
        before = api.count()
        answer = api.remove_folder(folder)
        assert answer["chunks_deleted"] == 3
        assert api.count() == before - 3
        assert "walrus.md" not in sources(api.query("walrus", mode="bm25"))

    def test_repeated_jobs_leak_no_connections(
        self, api: Api, folder: Path, cluster: Cluster, project: Project
    ) -> None:
        before = connections(cluster, project)
        for number in range(5):
            (folder / "rotor.py").write_text(f"def spin_rotor(speed):\n    return {number}\n")
            assert api.index(folder)["status"] == "done"
        assert connections(cluster, project) <= before


class TestQuery:
    @pytest.mark.parametrize("mode", MODES)
    def test_each_mode_finds_the_place(self, api: Api, indexed: Any, mode: str) -> None:
        results = api.query(QUESTION, mode=mode)
        assert len(results) == 10
        assert "decoder.py" in sources(results)[:3]
        scores = [result["score"] for result in results]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)

    @pytest.mark.parametrize("mode", MODES)
    def test_explain_names_the_words_that_hit(self, api: Api, indexed: Any, mode: str) -> None:
        results = api.query(QUESTION, mode=mode, explain=True)
        assert all(result["explanation"]["reason"] for result in results)
        if mode != "vector":
            terms = {t.lower() for r in results for t in r["explanation"]["matched_terms"] or ()}
            assert any(term.startswith("escape") for term in terms)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("kind", ["doc", "code"])
    def test_source_type_filter(self, api: Api, indexed: Any, mode: str, kind: str) -> None:
        results = api.query("the string and the database", mode=mode, source_types=[kind])
        assert results
        assert {result["source_type"] for result in results} == {kind}

    @pytest.mark.parametrize("mode", MODES)
    def test_language_filter(self, api: Api, indexed: Any, mode: str) -> None:
        results = api.query("the string and the database", mode=mode, languages=["python"])
        assert results
        assert {result["language"] for result in results} == {"python"}

    @pytest.mark.parametrize("mode", MODES)
    def test_both_filters(self, api: Api, indexed: Any, mode: str) -> None:
        results = api.query(
            "string", mode=mode, source_types=["code", "doc"], languages=["python"]
        )
        assert results
        assert {(r["source_type"], r["language"]) for r in results} == {("code", "python")}

    @pytest.mark.parametrize("mode", MODES)
    def test_file_filter(self, api: Api, indexed: Any, mode: str) -> None:
        results = api.query(QUESTION, mode=mode, file_paths=["*decoder.py"], top_k=50)
        assert results
        assert set(sources(results)) == {"decoder.py"}

    def test_vector_search_finds_exactly_the_nearest(
        self, api: Api, indexed: Any, cluster: Cluster, project: Project
    ) -> None:
        with cluster.connect(project.storage["postgres"]["database"]) as connection:
            rows = connection.execute("SELECT chunk_id, document FROM agent_brain.chunks").fetchall()
        question = embed(QUESTION, 256)
        scores = {chunk_id: float(question @ embed(text, 256)) for chunk_id, text in rows}
        nearest = sorted(scores, key=lambda chunk_id: -scores[chunk_id])[:20]
        found = api.query(QUESTION, mode="vector", top_k=20)
        assert [result["chunk_id"] for result in found] == nearest
        for result in found:
            assert result["score"] == pytest.approx(scores[result["chunk_id"]], abs=1e-3)

    @pytest.mark.parametrize("mode", ["vector", "hybrid"])
    def test_top_k_is_filled(self, api: Api, indexed: Any, mode: str) -> None:
        assert len(api.query("string", mode=mode, top_k=50)) == 50

    def test_the_threshold_holds(self, api: Api, indexed: Any) -> None:
        every = api.query(QUESTION, mode="vector", top_k=50)
        threshold = every[10]["score"]
        kept = api.query(QUESTION, mode="vector", top_k=50, similarity_threshold=threshold)
        assert 10 <= len(kept) < len(every)
        assert min(result["score"] for result in kept) >= threshold - 1e-6

    @pytest.mark.parametrize("text", ["'; DROP TABLE chunks; --", "a & | ! <->", "%s {x}", '"', "\0"])
    def test_any_string_is_a_query(self, api: Api, indexed: Any, text: str) -> None:
        for mode in MODES:
            api.query(text, mode=mode)

    def test_users_at_the_same_time_get_their_own_answers(self, api: Api, indexed: Any) -> None:
        words = ("decoder", "heap", "Jupiter", "deadlock", "dough", "quote", "wrap", "indent")
        questions = [f"{word} {suffix}" for word in words for suffix in ("", "function")]

        def ask(question: str) -> list[tuple[str, float]]:  # explain passes by the core's cache
            found = api.query(question, mode="hybrid", explain=True)
            return [(result["chunk_id"], result["score"]) for result in found]

        alone = [ask(question) for question in questions]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, questions * 2))
        assert together == alone * 2

    def test_graph_mode_says_what_it_needs(self, api: Api, indexed: Any) -> None:
        response = api.client.post("/query/", json={"query": "x", "mode": "graph"})
        assert not response.is_success
        assert "ChromaDB" in response.text


class TestChunk:
    def test_a_chunk_is_looked_up(self, api: Api, project: Project, indexed: Any) -> None:
        found = api.query(QUESTION, mode="bm25", top_k=1)[0]
        record = api.get(f"/query/chunk/{found['chunk_id']}")
        assert record["content"] == found["text"]
        assert record["source"] == found["source"]
        assert record["folder_id"] == str(Path(found["source"]).parent)

    def test_an_unknown_one_is_not_found(self, api: Api, indexed: Any) -> None:
        response = api.client.get("/query/chunk/chunk_0000000000000000")
        assert response.status_code == 404
        assert response.json()["detail"]["error"] == "chunk_not_found"


class TestHealth:
    @pytest.mark.parametrize("route", ["", "status", "providers", "config", "postgres"])
    def test_every_route_answers(self, api: Api, indexed: Any, route: str) -> None:
        assert api.get(f"/health/{route}")

    def test_the_server_is_ready(self, api: Api, indexed: Any) -> None:
        assert api.get("/health/")["status"] == "healthy"
        assert api.get("/health/config")["storage_backend"] == "postgres"

    def test_status_counts_the_chunks(self, api: Api, indexed: dict[str, Any]) -> None:
        assert api.get("/health/status")["total_chunks"] == api.count() > 100

    def test_postgres_shows_the_real_pool_and_server(
        self, api: Api, cluster: Cluster, project: Project, indexed: Any
    ) -> None:
        document = api.get("/health/postgres")
        pool, database = document["pool"], document["database"]
        assert document["status"] == "healthy"
        assert database["version"].startswith("PostgreSQL 16")
        assert database["database"] == project.storage["postgres"]["database"]
        assert (database["host"], database["port"]) == ("127.0.0.1", cluster.port)
        assert pool["status"] == "active"
        assert pool["pool_size"] == 10
        assert pool["total"] == pool["pool_size"] + pool["overflow"]
        open_now = pool["checked_in"] + pool["checked_out"]
        assert 0 < open_now <= connections(cluster, project)


class TestWorkingDirectory:
    def test_nothing_is_created_there(self, api: Api, project: Project, indexed: Any) -> None:
        assert list(project.workdir.iterdir()) == []


class TestReset:
    def test_reset_clears_the_rows_and_the_store_goes_on(
        self, api: Api, project: Project, indexed: dict[str, Any], cluster: Cluster
    ) -> None:
        api.reset()
        assert api.count() == 0
        assert folders(api) == []
        with cluster.connect(project.storage["postgres"]["database"]) as connection:
            assert connection.execute("SELECT count(*) FROM agent_brain.chunks").fetchone() == (0,)
        job = api.index(project.docs, force=True)
        assert job["status"] == "done", job
        assert api.count() == indexed["total_chunks"]
        assert "decoder.py" in sources(api.query(QUESTION, mode="hybrid"))[:3]
