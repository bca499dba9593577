"""`agent-brain-postgres init`: write what a project needs to use PostgreSQL."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent_brain_postgres import deploy, embedded
from agent_brain_postgres.deploy import Mode, Plan
from agent_brain_postgres.deploy.modes import NAME
from agent_brain_postgres.embedded.binaries import find_installation


def _port(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Read a port number, or `auto`, which is None."""
    if value == "auto":
        return None
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise click.BadParameter("a port lies between 1 and 65535; `auto` picks a free one")
    return int(value)


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the project's files go. [default: the project's .agent-brain/]",
)
@click.option("--docker", is_flag=True, help="A container, run by docker compose.")
@click.option("--embedded", "use_embedded", is_flag=True, help="The bundled PostgreSQL, without Docker.")
@click.option("--database-url", metavar="URL", help="A server that you have; `-`: read from stdin.")
@click.option(
    "--port",
    metavar="N|auto",
    callback=_port,
    default="auto",
    show_default=True,
    help="Port of the container.",
)
@click.option("--force", is_flag=True, help="Replace edited files too, keeping a backup of each.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    state_dir: Path | None,
    docker: bool,
    use_embedded: bool,
    database_url: str | None,
    port: int | None,
    force: bool,
    yes: bool,
) -> None:
    """Write what a project needs to use PostgreSQL.

    A compose file with a port and a password of its own, `.env.agent-brain` and the storage
    section of config.yaml, in the project's state directory. Shows every change and asks first.
    Run again, it changes nothing; in particular it keeps the password.
    """
    if docker + use_embedded + (database_url is not None) > 1:
        raise click.UsageError("choose one of --docker, --embedded and --database-url")
    if port is not None and (use_embedded or database_url is not None):
        raise click.UsageError("--port is for the container; it goes with --docker only")
    mode: Mode | None = "docker" if docker or port else "embedded" if use_embedded else None
    directory = (state_dir or deploy.state_directory()).expanduser().absolute()
    with deploy.locked(deploy.compose_project(directory)):
        url = _url(database_url)
        plan = deploy.prepare(directory, mode, port=port, database_url=url, force=force)
        _carry_out(plan, force=force, yes=yes)


def _url(given: str | None) -> str | None:
    if given != "-":
        return given
    return sys.stdin.readline().strip()


def _carry_out(plan: Plan, *, force: bool, yes: bool) -> None:
    try:
        if plan.mode == "embedded":
            find_installation()
        _write(plan, force=force, yes=yes)
    except BaseException:
        plan.abandon()
        raise
    if plan.mode == "embedded":
        _create_database(plan)
    for note in plan.notes:
        click.secho(f"Note: {note}", fg="yellow")
    first, *others = plan.next_commands()
    click.echo(f"Next: {first}")
    for other in others:
        click.echo(f"Then: {other}")


def _create_database(plan: Plan) -> None:
    """Create the embedded server's data; it runs only while someone uses it."""
    if not (plan.embedded_directory / "data").exists():
        click.echo(f"Creating a database in {plan.embedded_directory}")
    embedded.start(plan.embedded_directory, NAME).close()


def _write(plan: Plan, *, force: bool, yes: bool) -> None:
    if not plan.needed:
        click.echo(f"Everything in {plan.state_dir} is as it should be; nothing was changed.")
        return
    click.echo(plan.diff())
    if not yes:
        click.confirm(f"Write {len(plan.needed)} file(s)?", default=True, abort=True)
    written = [change.path for change in plan.needed]
    for backup in plan.apply(keep_backup=force):
        click.echo(f"Kept {backup}")
    for path in written:
        click.echo(f"Wrote {path}")
