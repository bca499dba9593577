"""`agent-brain-postgres template`: the compose template, to read or to copy."""

from __future__ import annotations

from pathlib import Path

import click

from agent_brain_postgres import deploy


@click.command()
@click.option(
    "--copy",
    "destination",
    metavar="DEST",
    type=click.Path(path_type=Path),
    help="Copy it to a file, or into a directory as docker-compose.yml.",
)
@click.option("--force", is_flag=True, help="Replace a file that differs, keeping a backup.")
def command(destination: Path | None, force: bool) -> None:
    """Print or copy the bundled compose template."""
    if destination is None:
        click.echo(deploy.template_text(), nl=False)
        return
    click.echo(deploy.copy_template(destination, force=force))
