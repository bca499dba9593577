"""`status`: what an Agent Brain server of this environment would use."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata

import click

from agent_brain_postgres.core import finder, pth, settings


@click.command()
def command() -> None:
    """Show whether Agent Brain's server would use this backend, and why."""
    for label, answer in report():
        click.echo(f"{label + ':':<16}{answer}")


def report() -> list[tuple[str, str]]:
    """List what decides it, in the order in which it is decided."""
    return [
        ("Python", sys.executable),
        ("Agent Brain", _core()),
        ("Entry point", _entry_point()),
        ("Enabled", _enabled()),
        ("Configuration", _configuration()),
        ("Backend", settings.effective_backend()[0]),
        ("Verdict", verdict()),
    ]


def verdict() -> str:
    """Say in one sentence what a server that is started now would do."""
    if importlib.util.find_spec("agent_brain_server") is None:
        return "agent-brain-rag is not installed here; run `status` with the server's Python"
    backend, where = settings.effective_backend()
    if backend != "postgres":
        return f"the server uses {backend} ({where}); set storage.backend: postgres"
    if finder.entry_point() is None:
        return "the entry point is missing; install agent-brain-postgres again"
    if any(pth.is_current(path) for path in pth.existing()):
        return "the server uses agent-brain-postgres, however it is started"
    return (
        "the server uses its built-in PostgreSQL backend, unless it is started with "
        "`agent-brain-postgres serve`; `agent-brain-postgres enable` changes that"
    )


def _core() -> str:
    try:
        return f"agent-brain-rag {metadata.version('agent-brain-rag')}"
    except metadata.PackageNotFoundError:
        return "not installed in this environment"


def _entry_point() -> str:
    entry = finder.entry_point()
    return f"{entry.name} = {entry.value}" if entry else "missing"


def _enabled() -> str:
    paths = pth.existing()
    if not paths:
        return "no"
    return "; ".join(
        f"yes, by {path}" if pth.is_current(path) else f"{path} is another version's: run `enable`"
        for path in paths
    )


def _configuration() -> str:
    path = settings.config_file()
    return str(path) if path else "none found"
