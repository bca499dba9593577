"""`migrate`: copy an existing index, embeddings included, so that nobody pays for them twice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent_brain_postgres.config import PostgresConfig
    from agent_brain_postgres.migrate.source import Source
    from agent_brain_postgres.migrate.target import Target
    from agent_brain_postgres.migrate.transfer import Options, Report

SAME_DATABASE = ""


@click.command()
@click.option(
    "--from-chroma",
    "chroma",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Copy the Chroma store in DIR (or in the project or state directory DIR).",
)
@click.option("--collection", metavar="NAME", help="The Chroma collection, if not the core's.")
@click.option(
    "--from-postgres",
    "builtin",
    metavar="[URL]",
    is_flag=False,
    flag_value=SAME_DATABASE,
    help="Copy the tables of the core's built-in PostgreSQL backend; without a URL those in the "
    "target's own database.",
)
@click.option("--database-url", metavar="URL", help="The target, instead of the settings'.")
@click.option("--db-schema", metavar="NAME", help="The target's schema, instead of the settings'.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace chunks of the target that differ.")
@click.option(
    "--batch-size",
    default=2_000,
    show_default=True,
    type=click.IntRange(1, 40_000),
    metavar="N",
    help="Chunks that are written in one transaction.",
)
@click.option(
    "--sample",
    default=200,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="Chunks that are read back and compared at the end.",
)
def command(
    chroma: Path | None,
    collection: str | None,
    builtin: str | None,
    database_url: str | None,
    db_schema: str | None,
    dry_run: bool,
    overwrite: bool,
    batch_size: int,
    sample: int,
) -> None:
    """Copy an index of Agent Brain into this backend, with its embeddings.

    The target is the database of the settings, as everywhere. The source is never changed. An
    interrupted copy goes on when the same command is run again; it ends with a comparison.
    """
    if (chroma is None) == (builtin is None):
        raise click.UsageError("give one source: --from-chroma DIR or --from-postgres [URL]")
    from agent_brain_postgres.config import load_config
    from agent_brain_postgres.migrate.transfer import Options

    config = load_config(cli={"database_url": database_url, "db_schema": db_schema})
    source = _open(chroma, collection, builtin, config)
    options = Options(batch_size=batch_size, sample=sample, overwrite=overwrite)
    try:
        asyncio.run(_run(source, config, options, dry_run=dry_run))
    finally:
        source.close()


def _open(
    chroma: Path | None, collection: str | None, builtin: str | None, config: PostgresConfig
) -> Source:
    if chroma is not None:
        from agent_brain_postgres.migrate.chroma import ChromaSource

        return ChromaSource(chroma, collection)
    from agent_brain_postgres.migrate.builtin import BuiltinSource

    return BuiltinSource(_conninfo(builtin or "", config))


def _conninfo(url: str, config: PostgresConfig) -> str:
    if url == SAME_DATABASE:
        return config.conninfo()
    from agent_brain_postgres.config import PostgresConfig

    return PostgresConfig.from_database_url(url).conninfo()


async def _run(source: Source, config: PostgresConfig, options: Options, *, dry_run: bool) -> None:
    from agent_brain_postgres.migrate.target import Target

    target = Target(config, embedding_dimensions=source.dimensions())
    there = await target.look()
    _describe(source, target, there)
    if dry_run:
        click.echo("Dry run: nothing was written.")
        return
    started = time.monotonic()
    try:
        await target.initialize()
        report = await _copy(source, target, options)
        # An index is built only when older transactions of its database are over: the source's,
        # where both are one database.
        source.close()
        click.echo("Waiting for the index ...")
        await target.wait_until_indexed()
    finally:
        await target.close()
    click.echo(
        f"Copied {report.copied:,} chunks in {time.monotonic() - started:.1f} s; "
        f"{report.present:,} were there already. Verified: all {report.total:,} ids are in the "
        f"target, and {report.compared:,} chunks read back are equal."
    )


async def _copy(source: Source, target: Target, options: Options) -> Report:
    from rich.console import Console
    from rich.progress import Progress

    from agent_brain_postgres.migrate.transfer import transfer

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Copying", total=source.count())
        return await transfer(source, target, options, lambda n: progress.advance(task, n))


def _describe(source: Source, target: Target, there: int | None) -> None:
    model = source.embedding_metadata()
    made_by = f", made by {model.provider}/{model.model}" if model else ""
    dimensions = source.dimensions()
    click.echo(f"From: {source.description}")
    click.echo(f"      {source.count():,} chunks of {dimensions or 0} dimensions{made_by}")
    if skipped := source.without_embedding():
        click.echo(f"      {skipped:,} chunks have no embedding and are left out")
    state = "no store yet" if there is None else f"{there:,} chunks"
    click.echo(f"To:   {target.name}: {state}")
