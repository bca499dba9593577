"""`enable`: let this environment's Agent Brain server find the backend, however it is started."""

from __future__ import annotations

import importlib.util

import click

from agent_brain_postgres.core import pth


@click.command()
def command() -> None:
    """Let Agent Brain's server use this backend, however it is started.

    Writes one .pth file into the site-packages of the Python that runs this command. Each
    interpreter that starts there then knows where `agent_brain_server.storage.postgres` is to be
    found, and imports nothing before the server asks for it. `disable` removes the file.
    """
    unchanged = any(pth.is_current(path) for path in pth.existing())
    try:
        path = pth.location() if unchanged else pth.write()
    except OSError as error:
        raise click.ClickException(
            f"cannot write {pth.location()}: {error.strerror}; run the server with "
            "`agent-brain-postgres serve` instead"
        ) from error
    click.echo(f"{'Already there' if unchanged else 'Wrote'}: {path}")
    click.echo(
        "Agent Brain servers started with this Python now get their PostgreSQL backend from "
        "agent-brain-postgres\nwhen the configuration says `storage.backend: postgres`. "
        "Other programs are not affected.\nUndo it with `agent-brain-postgres disable`."
    )
    if importlib.util.find_spec("agent_brain_server") is None:
        click.echo(
            "Note: agent-brain-rag is not installed in this environment. Run `enable` with the "
            "Python that runs the server.",
            err=True,
        )
