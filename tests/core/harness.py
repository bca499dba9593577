"""Starts the real core on a project of its own, and speaks to it as a client does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from .cluster import Cluster, free_port

OWN_VARIABLES = ("AGENT_BRAIN_", "PG", "DATABASE_URL", "API_", "INSECURE_", "PYTHON")
MODULE = ("-m", "agent_brain_server.api.main")
SERVE = ("-m", "agent_brain_postgres.core.server")


@dataclass
class Project:
    """A folder with an `.agent-brain` state directory and a configuration."""

    root: Path
    embeddings: str
    storage: dict[str, Any]
    model: str = "standin-256"
    extra: dict[str, str] = field(default_factory=dict)
    state_name: str = ".agent-brain"

    @property
    def state(self) -> Path:
        return self.root / self.state_name

    @property
    def docs(self) -> Path:
        return self.root / "docs"

    @property
    def workdir(self) -> Path:
        """The server's working directory: apart, so that what it drops there is seen."""
        path = self.root.parent / f"{self.root.name}-cwd{self.state_name}"
        path.mkdir(exist_ok=True)
        return path

    def write_config(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        provider = {"provider": "ollama", "base_url": self.embeddings}
        config = {
            "embedding": provider | {"model": self.model, "params": {"batch_size": 100}},
            "summarization": provider | {"model": "summary-0"},
            "storage": self.storage,
        }
        (self.state / "config.yaml").write_text(yaml.safe_dump(config))

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)}
        return inherited | core_variables() | {
            "AGENT_BRAIN_STATE_DIR": str(self.state),
            "AGENT_BRAIN_PROJECT_ROOT": str(self.root),
            **self.extra,
        }


def core_variables() -> dict[str, str]:
    """Give what lets the core run without a network."""
    import llama_index.core

    tokens = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
    return {
        "INSECURE_NO_AUTH": "true",
        "ANONYMIZED_TELEMETRY": "False",
        "HF_HUB_OFFLINE": "1",
        "TIKTOKEN_CACHE_DIR": str(tokens),
    }


def postgres_storage(cluster: Cluster, database: str, **settings: Any) -> dict[str, Any]:
    """Give the `storage` section for a database of the cluster."""
    connection = {
        "host": "127.0.0.1",
        "port": cluster.port,
        "database": database,
        "user": cluster.user,
        "password": cluster.password,
    }
    return {"backend": "postgres", "postgres": connection | settings}


class Api:
    """The server's HTTP interface: over a socket or through FastAPI's TestClient."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str, **params: Any) -> Any:
        return self._answer(self.client.get(path, params=params))

    def query(self, text: str, **options: Any) -> list[dict[str, Any]]:
        body = {"query": text, "similarity_threshold": 0.0, "top_k": 10} | options
        return list(self._answer(self.client.post("/query/", json=body))["results"])

    def start_index(self, folder: Path, *, force: bool = False, **body: Any) -> str:
        response = self.client.post(
            "/index/",
            params={"force": force},
            json={"folder_path": str(folder), "include_code": True, "force": force, **body},
        )
        return str(self._answer(response)["job_id"])

    def index(self, folder: Path, *, force: bool = False, **body: Any) -> dict[str, Any]:
        """Index a folder and give its job when that is over, however it ended."""
        job_id = self.start_index(folder, force=force, **body)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.get(f"/index/jobs/{job_id}")
            if job["status"] in {"done", "completed", "failed", "cancelled"}:
                return job
            time.sleep(0.1)
        raise TimeoutError(f"job {job_id} is not over: {job}")

    def remove_folder(self, folder: Path) -> dict[str, Any]:
        request = self.client.request(
            "DELETE", "/index/folders/", json={"folder_path": str(folder)}
        )
        return dict(self._answer(request))

    def reset(self) -> Any:
        return self._answer(self.client.delete("/index/"))

    def count(self) -> int:
        return int(self.get("/query/count")["total_chunks"])

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        assert response.is_success, f"{response.status_code}: {response.text}"
        return response.json()


class Server:
    """The core's server as a process of its own."""

    def __init__(self, project: Project, command: Sequence[str] = MODULE) -> None:
        self.project = project
        self.port = free_port()
        self.log = project.root.parent / f"{project.root.name}-{self.port}.log"
        self.started = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "--host", "127.0.0.1", "--port", str(self.port)],
                cwd=project.workdir,
                env=project.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.api = Api(self.client)

    def wait(self, timeout: float = 120) -> float:
        """Wait until it answers; give the seconds since it was started."""
        while time.perf_counter() - self.started < timeout:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.output()[-4000:]}")
            try:
                if self.client.get("/health/").is_success:
                    return time.perf_counter() - self.started
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError(self.output()[-4000:])

    def wait_for_end(self, timeout: float = 120) -> int:
        return self.process.wait(timeout)

    def output(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        """End it as a service manager does."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def running(project: Project, command: Sequence[str] = MODULE) -> Iterator[Server]:
    """Run the server on a project until the block ends."""
    project.write_config()
    server = Server(project, command)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def copy_corpus(target: Path) -> None:
    """Lay out a folder of code and prose: part of the standard library, and three documents."""
    import json as package

    target.mkdir(parents=True, exist_ok=True)

    library = Path(package.__file__).parent
    shutil.copytree(library, target / "json", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("textwrap.py", "shlex.py", "heapq.py"):
        shutil.copy(library.parent / name, target / name)
    for name, text in PROSE.items():
        (target / name).write_text(text)


PROSE = {
    "cooking.md": """# Bread

## Dough

Flour, water, salt and yeast make a dough. Knead it until the gluten is strong, then let it
rise in a warm kitchen. A slow fermentation in the refrigerator gives the crumb more flavour.

## Baking

Heat the oven and a heavy pot. The steam from the wet dough keeps the crust soft while the loaf
springs; later the crust browns.
""",
    "astronomy.md": """# The night sky

## Planets

Jupiter and Saturn are gas giants. Galileo saw four moons of Jupiter through his telescope, and
the rings of Saturn, which he took for handles.

## Stars

A star fuses hydrogen into helium. When the hydrogen of the core is used up, the star swells to
a red giant.
""",
    "handbook.md": """# Operations handbook

## Restarting the database

Drain the connection pool before the restart. Watch the replication lag on the standby; promote
it only when the primary is fenced.

## Deadlocks

Two transactions that lock the same rows in different order end in a deadlock. Sort the keys
before locking, and retry the transaction that was chosen as the victim.
""",
}
