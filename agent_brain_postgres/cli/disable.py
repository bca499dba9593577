"""`disable`: take back what `enable` did."""

from __future__ import annotations

import click

from agent_brain_postgres.core import pth


@click.command()
def command() -> None:
    """Undo `enable`: Agent Brain's server uses its own PostgreSQL backend again.

    Servers that are running keep what they loaded until they are restarted.
    """
    try:
        removed = pth.remove()
    except OSError as error:
        raise click.ClickException(
            f"cannot remove {error.filename}: {error.strerror}; delete it yourself"
        ) from error
    for path in removed:
        click.echo(f"Removed: {path}")
    if not removed:
        click.echo("Nothing to do: it is not enabled in this environment.")
