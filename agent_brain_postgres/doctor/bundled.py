"""The embedded PostgreSQL under examination: started, if its data is there."""

from __future__ import annotations

import asyncio

from agent_brain_postgres import embedded
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import Finding, failed, ok
from agent_brain_postgres.errors import StorageError


async def bundled(case: Case) -> list[Finding]:
    """Start the embedded server where the settings ask for it; it stops with its last user."""
    directory = case.settings.embedded_directory
    if directory is None:
        return []
    if not (directory / "data" / "PG_VERSION").exists():
        seen = f"no server: {directory} holds no data yet"
        return [failed("embedded", seen, "agent-brain-postgres init --embedded")]
    try:
        case.server = await asyncio.to_thread(embedded.start, directory, case.settings.database)
    except StorageError as error:
        return [failed("embedded", str(error), "see the message")]
    case.config = case.settings.with_connection(case.server.conninfo)
    return [ok("embedded", f"runs on {directory}")]
