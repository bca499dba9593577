"""`agent-brain-postgres tune`: how accurate and how fast vector search is, and which setting to use."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option("--recall", default=0.97, show_default=True, type=click.FloatRange(0.5, 1.0),
              help="The recall that is wanted.")
@click.option("--top-k", default=10, show_default=True, type=click.IntRange(1, 500),
              help="Results of a search.")
@click.option("--queries", default=100, show_default=True, type=click.IntRange(5, 2000),
              help="Queries to sample from the store.")
@click.option("--apply", "wanted", is_flag=True,
              help="Store the recommended value; hnsw_ef_search in the settings still wins.")
@click.option("--automatic", is_flag=True, help="Forget a stored value and stop.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def command(
    recall: float, top_k: int, queries: int, wanted: bool, automatic: bool, as_json: bool
) -> None:
    """Compare index search with exact search on your own chunks.

    Samples vectors of the store, searches for what is near them with several values of
    hnsw_ef_search, and recommends the smallest one that finds enough of the true neighbours.
    """
    from agent_brain_postgres.tune_report import run  # here, so that --help stays quick

    asyncio.run(run(recall, top_k, queries, wanted, automatic, as_json))
