"""The published core with real PostgreSQL and a stand-in for Ollama.

Collected only where the core is installed; the ordinary test run passes over this folder.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
collect_ignore_glob: list[str] = []

if importlib.util.find_spec("agent_brain_server") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from . import harness, standin
    from .cluster import Cluster
    from .cluster import running as running_cluster
    from .harness import Project, postgres_storage


@pytest.fixture(scope="session", autouse=True)
def _no_foreign_settings() -> None:
    for name in [*os.environ]:
        if name.startswith(("AGENT_BRAIN_", "PG")) or name == "DATABASE_URL":
            del os.environ[name]


@pytest.fixture(scope="session")
def ollama() -> Iterator[str]:
    """The base URL of the stand-in."""
    with standin.serve() as url:
        yield url


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that the tests may stop and start again.

    Not below pytest's directory: every other session closes that to the server's account.
    """
    with (
        tempfile.TemporaryDirectory(prefix="abp-core-") as directory,
        running_cluster(Path(directory)) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="session")
def enabled() -> Iterator[str]:
    """What `enable` said; `disable` afterwards."""
    command = [sys.executable, "-m", "agent_brain_postgres"]
    done = subprocess.run([*command, "enable"], capture_output=True, text=True, check=True)
    yield done.stdout
    subprocess.run([*command, "disable"], capture_output=True, check=True)


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, ollama: str, cluster: Cluster
) -> Project:
    """A project with a corpus and a database, shared by the tests of a module."""
    root = tmp_path_factory.mktemp("project") / "project"
    project = Project(root, ollama, postgres_storage(cluster, cluster.create_database()))
    harness.copy_corpus(project.docs)
    project.write_config()
    return project
