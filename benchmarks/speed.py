"""Measure ingest and search against hand-written SQL and the peers, interleaved, in one run.

    python benchmarks/speed.py --rows 10000 --dimensions 256
    python benchmarks/speed.py --contender floor --contender ours --contender vecs=/envs/peers/bin/python

Prints ratios to the floor, writes JSON and, with --plot and matplotlib, a picture. Every contender has
a process and a database of its own; they take turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from workload import FILTERS, Workload, default_cache, load

HERE = Path(__file__).parent
BLOCK = 20  # queries a turn
# Of the bundled server: what one contender reads must not push out what another has.
MEMORY = "4GB"
SECONDARY = ("floor-exact", "floor-iterative", "floor-accurate")  # on the floor's rows, for filters


@dataclass
class Worker:
    """A contender in its process."""

    name: str
    process: subprocess.Popen[str]

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Read one answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; its last words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


@dataclass
class Bench:
    """One run: its server, its contenders, its results."""

    server: str
    cache: Path
    rows: int
    dimensions: int
    rounds: int
    queries: int
    pythons: dict[str, str]
    work: Workload
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def dsn(self, name: str) -> str:
        """Name the contender's database."""
        base = "floor" if name in SECONDARY else name
        return make_conninfo(self.server, dbname=f"bench_{self.tag}_{base}")

    def start(self, name: str) -> Worker:
        """Start a contender, on an empty database unless it shares the floor's."""
        if name not in SECONDARY:
            self.drop(name)
            self._execute("CREATE DATABASE {}", name)
        python = self.pythons.get(name) or sys.executable
        command = [python, "worker.py", name, self.dsn(name), str(self.cache), str(self.rows),
                   str(self.dimensions)]
        process = subprocess.Popen(  # the interpreter is the user's own choice
            command, cwd=HERE, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        worker = Worker(name, process)
        worker.answer()
        return worker

    def drop(self, name: str) -> None:
        """Drop a contender's database."""
        if name not in SECONDARY:
            self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _execute(self, statement: Any, name: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(
                sql.SQL(statement).format(sql.Identifier(f"bench_{self.tag}_{name}"))
            )

    def record(self, name: str, figure: str, value: Any) -> None:
        """Keep a figure."""
        self.results.setdefault(name, {})[figure] = value


def ingest(bench: Bench, names: list[str]) -> dict[str, Worker]:
    """Let each store everything, `rounds` times in turn; the last workers stay."""
    kept: dict[str, Worker] = {}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(bench.rounds):
        for name in names:
            worker = bench.start(name)
            times[name].append(worker.ask(do="ingest"))
            say(f"  {name}: {bench.rows / times[name][-1]['ready']:.0f} rows/s")
            if turn == bench.rounds - 1:
                kept[name] = worker
            else:
                worker.close()
                bench.drop(name)
    for name, found in times.items():
        ready = float(np.median([one["ready"] for one in found]))
        bench.record(name, "ingest_rows_per_second", bench.rows / ready)
        bench.record(name, "ingest_stored_seconds", float(np.median([o["stored"] for o in found])))
        bench.record(name, "ingest_ready_seconds", ready)
        bench.record(name, "ingest_all", found)
    return kept


def unchanged(bench: Bench, worker: Worker) -> None:
    """Store the same rows again."""
    took = worker.ask(do="ingest", wait=False)["stored"]
    bench.record(worker.name, "again_seconds", took)
    bench.record(
        worker.name, "again_faster", bench.results[worker.name]["ingest_ready_seconds"] / took
    )


def searches(
    bench: Bench, workers: list[Worker], figure: str, *, k: int = 10,
    where: dict[str, Any] | None = None, mode: str = "search",
) -> None:
    """Search in turns of a few queries; latency, rows and recall."""
    queries = list(range(bench.queries))
    times: dict[str, list[float]] = {worker.name: [] for worker in workers}
    answers: dict[str, dict[int, list[str]]] = {worker.name: {} for worker in workers}
    order = random.Random(17)
    for worker in workers:
        worker.ask(do="search", queries=queries[:BLOCK], k=k, where=where, mode=mode)
    for _ in range(bench.rounds):
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            for worker in order.sample(workers, len(workers)):  # nobody always follows another
                answer = worker.ask(do="search", queries=block, k=k, where=where, mode=mode)
                times[worker.name] += answer["ms"]
                answers[worker.name].update(zip(block, answer["ids"], strict=True))
    truth = _truth(bench.work, where, k) if mode == "search" else None
    for name, taken in times.items():
        bench.record(name, f"{figure}_p50_ms", float(np.percentile(taken, 50)))
        bench.record(name, f"{figure}_p95_ms", float(np.percentile(taken, 95)))
        bench.record(name, f"{figure}_rows", min(map(len, answers[name].values())))
        if truth is not None:
            hits = [len(set(ids) & truth[q]) / len(truth[q]) for q, ids in answers[name].items()]
            bench.record(name, f"{figure}_recall", float(np.mean(hits)))
        say(f"  {figure} {name}: {show(bench.results[name], figure)}")


def show(figures: dict[str, Any], figure: str) -> str:
    """Put the figures of one kind of search in a line."""
    recall = figures.get(f"{figure}_recall")
    return (
        f"p50 {figures[f'{figure}_p50_ms']:.2f} ms, p95 {figures[f'{figure}_p95_ms']:.2f} ms, "
        f"{figures[f'{figure}_rows']} rows" + (f", recall {recall:.3f}" if recall else "")
    )


def _truth(work: Workload, where: dict[str, Any] | None, k: int) -> list[set[str]]:
    rows = work.matching(where)
    return [work.nearest(query, rows, k) for query in work.queries]


def concurrent(bench: Bench, workers: list[Worker]) -> None:
    """Count searches a second with 32 in flight."""
    queries = list(range(bench.queries)) * 3
    found: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for worker in workers:  # until every connection is there
        worker.ask(do="concurrent", queries=queries)
    for _ in range(max(3, bench.rounds)):
        for worker in workers:
            found[worker.name].append(worker.ask(do="concurrent", queries=queries)["per_second"])
    for name, rates in found.items():
        bench.record(name, "searches_per_second", float(np.median(rates)))
        say(f"  32 in flight {name}: {np.median(rates):.0f}/s")


def run(bench: Bench, names: list[str], quick: bool) -> None:
    """Measure everything."""
    workers = ingest(bench, names)
    if "ours" in workers:
        unchanged(bench, workers["ours"])
    everyone = list(workers.values())
    try:
        searches(bench, everyone, "vector")
        concurrent(bench, everyone)
        searches(bench, everyone, "vector_k100", k=100)
        if not quick:
            _filters(bench, everyone)
            _words(bench, everyone)
        for worker in everyone:
            bench.record(worker.name, "memory_mb", worker.ask(do="memory")["memory_mb"])
    finally:
        for worker in everyone:
            worker.close()
        for name in names:
            bench.drop(name)


def _filters(bench: Bench, everyone: list[Worker]) -> None:
    others = [worker for worker in everyone if worker.name != "floor"]
    ways = [bench.start(name) for name in SECONDARY if "floor" in bench.results]
    try:
        for share, (where, _) in FILTERS.items():
            searches(bench, [*others, *ways], f"kept_{share}", where=where)
        own = {"file_name": bench.work.metadatas[0]["file_name"]}
        searches(bench, [*others, *ways], "kept_one_file", where=own)
    finally:
        for way in ways:
            way.close()


def _words(bench: Bench, everyone: list[Worker]) -> None:
    able = [worker for worker in everyone if worker.name in ("ours", "core")]
    for mode in ("keyword", "hybrid"):
        searches(bench, [w for w in able if mode == "keyword" or w.name == "ours"], mode, mode=mode)


def ratios(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Compare with the floor."""
    floor = results.get("floor")
    if floor is None:
        return
    for name, figures in results.items():
        if name == "floor" or name in SECONDARY:
            continue
        parts = [
            f"{label} {figures[key] / floor[key]:.2f} x"
            for label, key in (
                ("ingest", "ingest_rows_per_second"), ("vector p50", "vector_p50_ms"),
                ("searches/s", "searches_per_second"),
            )
            if key in figures
        ]
        yield f"{name} against the floor: " + ", ".join(parts)


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def server(dsn: str | None, cache: Path) -> Iterator[str]:
    """Use the server given, or the bundled one in the cache folder."""
    if dsn:
        yield dsn
        return
    from agent_brain_postgres import embedded
    from agent_brain_postgres.embedded import cluster

    cluster.SETTINGS["shared_buffers"] = MEMORY
    with embedded.start(cache / "server", "postgres") as running:
        yield running.conninfo


def machine(dsn: str) -> dict[str, Any]:
    """Describe where this was measured."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('shared_buffers'),"
            " (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')"
        ).fetchone()
    version, buffers, pgvector = row or (None, None, None)
    return {
        "postgres": version, "pgvector": pgvector, "shared_buffers": buffers,
        "cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
        "load_at_start": os.getloadavg(),
    }


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--contender", action="append", metavar="NAME[=PYTHON]")
    parser.add_argument("--server", help="connection string; default: the bundled PostgreSQL")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="picture to write")
    parser.add_argument("--quick", action="store_true", help="no filters, no words")
    given = parser.parse_args()
    chosen = [one.partition("=") for one in given.contender or ["floor", "ours"]]
    pythons = {name: python for name, _, python in chosen}
    work = load(given.cache, given.rows, given.dimensions)
    with server(given.server, given.cache) as dsn:
        bench = Bench(
            dsn, given.cache, given.rows, given.dimensions, given.rounds, given.queries,
            pythons, work
        )
        about = {
            **machine(dsn), "rows": given.rows, "dimensions": given.dimensions,
            "rounds": given.rounds, "at": datetime.now(timezone.utc).isoformat("T", "seconds"),
        }
        say(json.dumps(about))
        run(bench, list(pythons), given.quick)
    about["load_at_end"] = os.getloadavg()
    for line in ratios(bench.results):
        say(line)
    if given.out:
        given.out.write_text(json.dumps({"about": about, "results": bench.results}, indent=1) + "\n")
    if given.plot:
        from plots import draw

        draw(bench.results, about, given.plot)


if __name__ == "__main__":
    main()
