"""The command `agent-brain-postgres`: one subcommand a module, imported when it is used."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

EXIT_INTERRUPTED = 130

# Name -> where the click command is. The order is the order of `--help`.
COMMANDS: dict[str, str] = {
    "demo": "agent_brain_postgres.cli.demo:command",
    "init": "agent_brain_postgres.cli.init:command",
    "doctor": "agent_brain_postgres.cli.doctor:command",
    "template": "agent_brain_postgres.cli.template:command",
    "enable": "agent_brain_postgres.cli.enable:command",
    "disable": "agent_brain_postgres.cli.disable:command",
    "status": "agent_brain_postgres.cli.status:command",
    "serve": "agent_brain_postgres.cli.serve:command",
    "migrate": "agent_brain_postgres.cli.migrate:command",
    "tune": "agent_brain_postgres.cli.tune:command",
}


class Commands(click.Group):
    """A group whose subcommands are looked up in `COMMANDS`.

    An error of the storage is one line without a traceback and exit code 1; wrong usage is 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted.", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            from agent_brain_postgres.errors import StorageError

            if not isinstance(error, StorageError):
                raise
            raise click.ClickException(str(error)) from error


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"agent-brain-postgres {version('agent-brain-postgres')}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def main() -> None:
    """PostgreSQL storage for Agent Brain: vector, keyword and hybrid search.

    To see it work on your own files, without Docker, network or API key:

    \b
        agent-brain-postgres demo PATH --query "where are passwords checked"

    Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # file names and texts hold anything
