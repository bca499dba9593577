"""The core's server as a process: how it is started, restarted, and what it survives."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from .cluster import Cluster
from .harness import MODULE, SERVE, Project, Server

Launch = Callable[..., Server]
COMMAND = ("-m", "agent_brain_postgres", "serve")


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start servers that are stopped after the test."""
    servers: list[Server] = []

    def start(project: Project, command: tuple[str, ...] = MODULE, *, wait: bool = True) -> Server:
        project.write_config()
        server = Server(project, command)
        servers.append(server)
        if wait:
            server.wait()
        return server

    yield start
    for server in servers:
        server.stop()


def backends(cluster: Cluster, project: Project) -> int:
    with cluster.connect("postgres") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s",
            [project.storage["postgres"]["database"]],
        ).fetchone()
    assert row is not None
    return int(row[0])


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_enable_says_what_it_wrote(enabled: str) -> None:
    path = Path(enabled.splitlines()[0].partition(": ")[2])
    assert path.suffix == ".pth"
    assert path.exists()
    assert "agent-brain-postgres disable" in enabled


def test_started_as_a_module_after_enable(
    enabled: str, project: Project, cluster: Cluster, launch: Launch
) -> None:
    server = launch(project)
    assert server.api.index(project.docs)["status"] == "done"
    count = server.api.count()
    assert count > 100
    assert server.api.query("json decoder", mode="hybrid")
    assert "agent_brain_postgres" in server.output() or backends(cluster, project) > 0

    assert server.stop() in (0, -signal.SIGTERM)
    eventually(lambda: backends(cluster, project) == 0)

    again = launch(project)
    assert again.api.count() == count
    assert again.api.query("json decoder", mode="bm25")
    assert again.api.index(project.docs)["eviction_summary"]["chunks_to_create"] == 0
    assert list(project.workdir.iterdir()) == []


@pytest.mark.parametrize("command", [COMMAND, SERVE])
def test_serve(
    project: Project, cluster: Cluster, launch: Launch, command: tuple[str, ...]
) -> None:
    server = launch(project, command)
    assert server.api.get("/health/postgres")["pool"]["maximum"] == 20
    assert server.stop() in (0, -signal.SIGTERM)
    eventually(lambda: backends(cluster, project) == 0)


def test_serve_with_reload(project: Project, launch: Launch) -> None:
    server = launch(project, (*COMMAND, "--reload"))
    assert server.api.get("/health/postgres")["pool"]["maximum"] == 20


def test_it_survives_a_restart_of_the_database(
    project: Project, cluster: Cluster, launch: Launch
) -> None:
    server = launch(project, COMMAND)
    server.api.index(project.docs)
    count = server.api.count()

    cluster.stop()
    try:
        started = time.monotonic()
        document = server.api.get("/health/postgres")
        assert time.monotonic() - started < 5
        assert document["status"] == "unhealthy"
        assert server.client.get("/health/").is_success
    finally:
        cluster.start()

    eventually(lambda: server.api.get("/health/postgres")["status"] == "healthy")
    assert server.api.count() == count
    assert server.api.query("json decoder", mode="hybrid")
    (project.docs / "added.md").write_text("# Added\n\nWritten after the restart.\n")
    assert server.api.index(project.docs)["status"] == "done"
    (project.docs / "added.md").unlink()


def test_another_model_is_refused_in_words_until_reset(
    project: Project, launch: Launch
) -> None:
    server = launch(project, COMMAND)
    server.api.index(project.docs)
    server.stop()

    server = launch(replace(project, model="standin-128"), COMMAND)
    (project.docs / "more.md").write_text("# More\n\nAnother document.\n")
    job = server.api.index(project.docs)
    assert job["status"] == "failed"
    assert "standin-256" in job["error"]
    assert "standin-128" in job["error"]

    server.api.reset()
    job = server.api.index(project.docs, force=True)
    assert job["status"] == "done", job["error"]
    assert server.api.query("json decoder", mode="vector")
    server.api.reset()
    (project.docs / "more.md").unlink()


def test_other_dimensions_are_refused_at_the_start_naming_both(
    project: Project, cluster: Cluster, launch: Launch
) -> None:
    database = cluster.create_database()
    section = project.storage["postgres"] | {"database": database}
    storage = project.storage | {"postgres": section}
    one = replace(project, storage=storage, extra={"AGENT_BRAIN_POSTGRES_EMBEDDING_DIMENSIONS": "256"})
    launch(one, COMMAND).stop()

    other = replace(one, extra={"AGENT_BRAIN_POSTGRES_EMBEDDING_DIMENSIONS": "128"})
    server = launch(other, COMMAND, wait=False)
    assert server.wait_for_end() != 0
    assert "256" in server.output()
    assert "128" in server.output()
    eventually(lambda: backends(cluster, one) == 0)


def test_a_wrong_password_ends_the_start_at_once(
    project: Project, cluster: Cluster, launch: Launch
) -> None:
    section = project.storage["postgres"] | {"password": "not it"}
    wrong = replace(project, storage=project.storage | {"postgres": section})
    server = launch(wrong, COMMAND, wait=False)
    assert server.wait_for_end(60) != 0
    assert "attempt 2" not in server.output()
    assert "password" in server.output()
    assert "not it" not in server.output()
    eventually(lambda: backends(cluster, project) == 0)
