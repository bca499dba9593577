"""The published core on this backend against the core on its own: start-up and storage stage.

Run it with the core's Python, which needs asyncpg for the built-in PostgreSQL backend:

    $(.ci/core-env) -m pip install asyncpg greenlet
    $(.ci/core-env) benchmarks/core.py [--chunks 5000] [--starts 6]

Both servers run on the same PostgreSQL, with embeddings of 768 dimensions from the tests' stand-in
for Ollama. Start-up is the time from the launch of the process until `GET /health/` answers, and
the processor time it has used by then, which other load disturbs less; the two by turns. The
storage stage is the time spent in `upsert_documents` while a folder is indexed over the API. The
built-in backend has its index on the vectors from the start; this one builds it after the rows:
the last column adds the wait for that.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TIMES = "ABP_BENCHMARK_TIMES"
MODEL = "standin-768"  # what the core says of any model of Ollama's that it does not know
BACKENDS = ("built-in", "agent-brain-postgres")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=5_000)
    parser.add_argument("--starts", type=int, default=6)
    arguments = parser.parse_args()

    from tests.core import cluster, standin

    with tempfile.TemporaryDirectory(prefix="abp-core-") as name, standin.serve() as url:
        directory = Path(name)
        with cluster.running(directory / "cluster") as server:
            projects = {b: project(directory, url, server, b) for b in BACKENDS}
            copy_sources(projects[BACKENDS[0]].docs, arguments.chunks)
            starts: dict[str, list[tuple[float, float]]] = {b: [] for b in BACKENDS}
            for turn in range(arguments.starts + 1):
                for backend in BACKENDS:
                    taken = start_once(projects[backend], backend)
                    if turn:  # the first warms the file cache
                        starts[backend].append(taken)
            stages = {b: index(projects[b], b) for b in BACKENDS}
    report(starts, stages)


def project(directory: Path, url: str, server: Any, backend: str) -> Any:
    from tests.core.harness import Project, postgres_storage

    storage = postgres_storage(server, server.create_database())
    storage["postgres"] |= server.plain_login()
    return Project(directory / "project", url, storage, model=MODEL, state_name=f".{backend}")


def copy_sources(target: Path, chunks: int) -> None:
    """Copy the standard library's modules until they should make about that many chunks."""
    library = Path(sysconfig.get_path("stdlib"))
    lines = 0
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if "site-packages" in inside.parts or "test" in inside.parts:
            continue
        copy = target / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        lines += path.read_bytes().count(b"\n")
        if lines > chunks * 24:  # what the core makes of a chunk of code, on average
            return


def command(backend: str) -> tuple[str, ...]:
    return (str(Path(__file__).resolve()), "serve", backend)


def start_once(project: Any, backend: str) -> tuple[float, float]:
    from tests.core.harness import Server

    psutil = importlib.import_module("psutil")  # comes with the embedded PostgreSQL

    project.write_config()
    server = Server(project, command(backend))
    try:
        seconds = float(server.wait())
        used = psutil.Process(server.process.pid).cpu_times()
        return seconds, used.user + used.system
    finally:
        server.stop()


def index(project: Any, backend: str) -> dict[str, float]:
    """Index the folder over the API; what the server noted of its calls."""
    from tests.core.harness import Server

    times = project.root.parent / f"{backend}.json"
    project.extra[TIMES] = str(times)
    project.write_config()
    server = Server(project, command(backend))
    try:
        server.wait()
        job = server.api.index(project.docs)
        assert job["status"] == "done", job
        count = server.api.count()
    finally:
        server.stop()
    calls = json.loads(times.read_text())
    stored, indexed = (sum(column) for column in zip(*calls, strict=True))
    return {"chunks": count, "seconds": stored, "indexed": indexed}


def report(starts: dict[str, list[tuple[float, float]]], stages: dict[str, dict[str, float]]) -> None:
    columns = ("start-up, s", "of it CPU, s", "chunks", "storage, s", "rows/s", "until indexed, s")
    print(" " * 22 + "  ".join(columns))
    for backend in BACKENDS:
        stage = stages[backend]
        seconds, used = (statistics.median(column) for column in zip(*starts[backend], strict=True))
        print(
            f"{backend:<22}{seconds:>11.2f}{used:>14.2f}{stage['chunks']:>8.0f}"
            f"{stage['seconds']:>12.2f}{stage['chunks'] / stage['seconds']:>8.0f}"
            f"{stage['indexed']:>18.2f}"
        )
    built_in, ours = (stages[b]["seconds"] for b in BACKENDS)
    print(f"storage stage: {built_in / ours:.1f} times as fast")
    print(f"load average: {os.getloadavg()}, {os.cpu_count()} processors")


def serve(backend: str, arguments: list[str]) -> None:
    """Run the core's server, noting how long each `upsert_documents` took."""
    from agent_brain_postgres import core

    core.uninstall()
    if backend != "built-in":
        core.install()
    if times := os.environ.get(TIMES):
        note_calls(Path(times))
    from agent_brain_server.api.main import cli

    cli(arguments)


def note_calls(path: Path) -> None:
    from agent_brain_server.storage.postgres import PostgresBackend

    upsert = PostgresBackend.upsert_documents
    calls: list[tuple[float, float]] = []

    def note(start: float, stored: float) -> None:
        calls.append((stored - start, time.perf_counter() - start))
        path.write_text(json.dumps(calls))

    async def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        count = await upsert(self, *args, **kwargs)
        stored = time.perf_counter()
        if hasattr(self, "wait_until_indexed"):
            await self.wait_until_indexed()
        note(start, stored)
        return count

    PostgresBackend.upsert_documents = timed


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3:])
    else:
        main()
