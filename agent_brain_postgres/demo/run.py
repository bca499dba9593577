"""The demo, step by step."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from . import render
from .chunks import printable
from .embedding import DIMENSIONS, MODEL, PROVIDER, Embedder
from .host import load_backend
from .indexing import Indexing, list_files
from .timings import Timings

if TYPE_CHECKING:
    from agent_brain_postgres.backend import PostgresBackend
    from agent_brain_postgres.types import SearchResult

TOP_K = 5


class Demo:
    """One run on the files below `root`, with the store in `state`."""

    def __init__(self, root: Path, state: Path, console: Console) -> None:
        self._root = root
        self._state = state
        self._console = console
        self._timings = Timings()

    async def run(self, queries: Sequence[str]) -> None:
        """Index, answer, report. Interrupted, it leaves a store that the next run completes."""
        with self._timings.measure("load the embedding model"):
            embedder = Embedder()
        backend = load_backend(self._state / "postgres")
        try:
            with self._console.status("Starting PostgreSQL"), self._timings.measure(
                "start PostgreSQL, open the store"
            ):
                await backend.initialize()
            await self._index(backend, embedder)
            for query in queries or self._ask():
                await self._answer(backend, embedder, query)
            render.print_health(self._console, await backend.health())
        finally:
            await backend.close()
        render.print_timings(self._console, self._timings.seconds)

    async def _index(self, backend: PostgresBackend, embedder: Embedder) -> None:
        backend.validate_embedding_compatibility(
            PROVIDER, MODEL, DIMENSIONS, await backend.get_embedding_metadata()
        )
        paths = await asyncio.to_thread(list_files, self._root, self._state)
        indexing = Indexing(backend, embedder, self._root, self._timings)
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files, {task.fields[chunks]} chunks stored"),
            TimeElapsedColumn(),
            console=self._console,
        )
        with bar:
            task = bar.add_task("Indexing", total=len(paths), chunks=0)

            def progress(files: int, _: int) -> None:
                bar.update(task, advance=files, chunks=indexing.summary.stored)

            try:
                summary = await indexing.run(paths, progress)
            except asyncio.CancelledError:
                self._console.print(
                    f"{indexing.summary.stored} chunks are stored; the next run goes on from there."
                )
                raise
        await backend.set_embedding_metadata(PROVIDER, MODEL, DIMENSIONS)
        with self._timings.measure("wait for the vector index"):
            await backend.wait_until_indexed()
        render.print_summary(self._console, summary, await backend.get_count())

    def _ask(self) -> Iterator[str]:
        """Ask for queries at a terminal until an empty line."""
        if not sys.stdin.isatty():
            self._console.print("No query to answer: give some with --query TEXT.")
            return
        self._console.print("Ask your files something; an empty line ends.")
        while query := self._read_line().strip():
            yield query

    def _read_line(self) -> str:
        try:
            return self._console.input("[bold]query>[/] ")
        except EOFError:
            return ""

    async def _answer(self, backend: PostgresBackend, embedder: Embedder, query: str) -> None:
        with self._timings.measure("embed the queries"):
            vector = (await asyncio.to_thread(embedder.embed, [query]))[0]
        self._console.print()
        self._console.rule(render.heading(query), align="left")
        here = {"root": printable(str(self._root))}
        searches: dict[str, Callable[[], Awaitable[Sequence[SearchResult]]]] = {
            "vector": lambda: backend.vector_search(vector, TOP_K, where=here),
            "keyword": lambda: backend.keyword_search(query, TOP_K, where=here),
            "hybrid": lambda: backend.hybrid_search(query, vector, TOP_K, where=here),
        }
        for name, search in searches.items():
            begun = time.perf_counter()
            with self._timings.measure(f"{name} search"):
                results = await search()
            took = (time.perf_counter() - begun) * 1000
            self._console.print(
                render.results_table(name.capitalize(), query, results, self._root, took)
            )


def run_demo(root: Path, state: Path, queries: Sequence[str], console: Console) -> None:
    """Run the demo to its end, or to Ctrl-C."""
    demo = Demo(root, state, console)
    with _drivers_quiet(), _interrupts_held():
        asyncio.run(_interruptible(demo.run(queries)))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while asyncio makes its event loop: half of one cannot be closed."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Let Ctrl-C through again, now that the loop runs, and do the work."""
    task = asyncio.ensure_future(work)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    await task


@contextmanager
def _drivers_quiet() -> Iterator[None]:
    """Keep what psycopg logs about a connection that Ctrl-C cut short off the terminal."""
    driver = logging.getLogger("psycopg")
    level = driver.level
    driver.setLevel(logging.ERROR)
    try:
        yield
    finally:
        driver.setLevel(level)
