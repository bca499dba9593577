"""`serve`: the core's server on this backend, without a .pth file."""

from __future__ import annotations

import importlib.util
import runpy
import sys

import click

from agent_brain_postgres.core import settings

SERVER = "agent_brain_postgres.core.server"


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run Agent Brain's server with this backend, nothing being written anywhere.

    ARGUMENTS are those of `agent-brain-serve`: --host, --port, --reload, --state-dir,
    --project-dir, --help.
    """
    if importlib.util.find_spec("agent_brain_server") is None:
        raise click.ClickException(
            "agent-brain-rag is not installed in this environment; install it beside "
            "agent-brain-postgres: pip install agent-brain-rag"
        )
    backend, where = settings.effective_backend()
    if backend != "postgres" and "--help" not in arguments:
        click.echo(
            f"Note: the server will use {backend} ({where}); set storage.backend: postgres there, "
            "or AGENT_BRAIN_STORAGE_BACKEND=postgres in the environment.",
            err=True,
        )
    sys.argv = ["agent-brain-postgres serve", *arguments]
    # As the main module, so that the processes that --reload spawns install the finder as well.
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
