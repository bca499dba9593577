"""What the command `tune` does and shows: measure, recommend, store."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from agent_brain_postgres import PostgresBackend, index_state, tune
from agent_brain_postgres.index_state import IndexState

WIDTH, HEIGHT = 56, 9  # characters of the plot


async def run(
    recall: float, top_k: int, queries: int, wanted: bool, automatic: bool, as_json: bool
) -> None:
    """Measure a store as the command's options say, print it, and store what is `wanted`."""
    backend = PostgresBackend()
    try:
        await backend.initialize()
        if automatic:
            await _store(backend, None)
            click.echo("hnsw_ef_search is automatic again.")
            return
        await _tune(backend, recall, top_k, queries, wanted, as_json)
    finally:
        await backend.close()


async def _tune(
    backend: PostgresBackend, recall: float, top_k: int, queries: int, wanted: bool, as_json: bool
) -> None:
    state = await _state(backend)
    if state.state != "ready":
        click.echo(_why_not(state))
        return
    pool, store = backend._opened()
    truth = await tune.sample(pool, store, state.rows, queries, top_k)
    measured = [one async for one in tune.measure(pool, store, state.rows, truth, top_k)]
    best = tune.recommend(measured, recall)
    if as_json:
        click.echo(json.dumps({
            "rows": state.rows, "index": state.kind, "top_k": top_k, "exact_p50": truth.p50,
            "measured": [asdict(one) for one in measured], "recommended": best.ef_search,
        }, indent=2))
    else:
        _show(state, truth, measured, best, recall, top_k)
    if wanted:
        await _store(backend, best.ef_search)
    _say_what_holds(backend, best, wanted, as_json)


async def _state(backend: PostgresBackend) -> IndexState:
    pool, store = backend._opened()
    async with pool.connection() as connection:
        return await index_state.read(connection, store)


async def _store(backend: PostgresBackend, ef_search: int | None) -> None:
    pool, store = backend._opened()
    async with pool.connection() as connection:
        await tune.apply(connection, store, ef_search)


def _why_not(state: IndexState) -> str:
    if state.state == "building":
        return f"The index is being built ({state.progress:.0%}); try again when it is ready."
    if state.kind == "exact":
        return f"{state.rows:,} chunks are searched exactly, without an index: nothing to tune."
    return "The index is not there yet; it is built in the background while a program runs."


def _show(
    state: IndexState, truth: tune.Truth, measured: list[tune.Measured], best: tune.Measured,
    recall: float, top_k: int,
) -> None:
    console = Console(highlight=False)
    table = Table(title=f"{state.rows:,} chunks, {len(truth.queries)} queries, index {state.kind}")
    for heading in ("hnsw_ef_search", f"recall@{top_k}", "p50 ms", "p95 ms", ""):
        table.add_column(heading, justify="right" if heading else "left")
    usual = tune.automatic(state.rows, top_k)
    for one in measured:
        note = "recommended" if one is best else ""
        table.add_row(
            str(one.ef_search), f"{one.recall:.3f}", f"{one.p50:.2f}", f"{one.p95:.2f}", note,
            style="bold green" if one is best else None,
        )
    table.add_row("exact", "1.000", f"{truth.p50:.2f}", "", "", style="dim")
    console.print(table)
    console.print("\n".join(plot(measured, best)))
    if best.recall < recall:
        console.print(
            f"No value reaches a recall of {recall}: build the index with a larger hnsw_m or "
            "hnsw_ef_construction."
        )
    console.print(f"Without a setting, searches for {top_k} results use about {usual}.")


def plot(measured: list[tune.Measured], best: tune.Measured) -> list[str]:
    """Draw recall (up) against latency (to the right, p50)."""
    low = min(one.recall for one in measured)
    span = max(1.0 - low, 0.001)
    slowest = max(one.p50 for one in measured)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for one in measured:
        row = round((1.0 - one.recall) / span * (HEIGHT - 1))
        column = round(one.p50 / slowest * (WIDTH - 1))
        grid[row][column] = "●" if one is best else "o"
    labels = {0: "1.000", HEIGHT - 1: f"{low:.3f}"}
    lines = [f"{labels.get(i, ''):>6} │{''.join(row)}" for i, row in enumerate(grid)]
    foot = f"{'0':<{WIDTH // 2}}{f'{slowest:.1f} ms':>{WIDTH - WIDTH // 2}}"
    return ["recall", *lines, "       └" + "─" * WIDTH, "        " + foot]


def _say_what_holds(
    backend: PostgresBackend, best: tune.Measured, stored: bool, quiet: bool
) -> None:
    if quiet:
        return
    setting = backend.config.hnsw_ef_search
    if stored:
        click.echo(f"Stored {best.ef_search}: programs take it up within a minute.")
    if setting is not None:
        click.echo(f"The setting hnsw_ef_search = {setting} ({_origin(backend)}) wins over it.")
    elif not stored:
        click.echo(f"Use it: --apply, or hnsw_ef_search: {best.ef_search} in the settings.")


def _origin(backend: PostgresBackend) -> str:
    return str(backend.config.sources.get("hnsw_ef_search", "settings"))
