"""Run one contender: commands come as lines of JSON on stdin, timings go out on stdout.

    python worker.py NAME DSN CACHE ROWS DIMENSIONS
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from contenders import BATCH, Contender, create
from workload import Workload, load

Answer = dict[str, Any]


async def run(contender: Contender, work: Workload, command: dict[str, Any]) -> Answer:
    """Carry out one command and time it."""
    do = command.pop("do")
    if do == "ingest":
        return await _ingest(contender, work, **command)
    if do == "search":
        return await _search(contender, **command)
    if do == "concurrent":
        return await _concurrent(contender, **command)
    return {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


async def _ingest(contender: Contender, work: Workload, wait: bool = True) -> Answer:
    began = time.perf_counter()
    for start in range(0, len(work.ids), BATCH):
        await contender.add(start, min(start + BATCH, len(work.ids)))
    stored = time.perf_counter()
    if wait:
        await contender.ready()
    return {"stored": stored - began, "ready": time.perf_counter() - began}


async def _search(
    contender: Contender, queries: list[int], k: int = 10, where: dict[str, Any] | None = None,
    mode: str = "search",
) -> Answer:
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        if mode == "search":
            ids = await contender.search(query, k, where)
        else:
            ids = await getattr(contender, mode)(query, k)
        times.append(1000 * (time.perf_counter() - began))
        found.append(ids)
    return {"ms": times, "ids": found}


async def _concurrent(
    contender: Contender, queries: list[int], in_flight: int = 32, k: int = 10
) -> Answer:
    waiting = list(queries)

    async def work() -> None:
        while waiting:
            await contender.search(waiting.pop(), k, None)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return {"per_second": len(queries) / (time.perf_counter() - began)}


async def main() -> None:
    """Serve commands until stdin ends."""
    name, dsn, cache, rows, dimensions = sys.argv[1:]
    work = load(Path(cache), int(rows), int(dimensions))
    contender = create(name)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a contender prints is no answer
    await contender.start(dsn, work)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer = await run(contender, work, json.loads(line))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    asyncio.run(main())
