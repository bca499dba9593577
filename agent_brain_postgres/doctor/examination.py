"""Every check in order, the repairs, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from agent_brain_postgres import settings_files
from agent_brain_postgres.doctor import bundled, indexes, network, server, settings, tables, tuning
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import Finding, Status, failed, skipped
from agent_brain_postgres.errors import PostgresStorageError, translate

Need = Literal["nothing", "settings", "port", "connection", "tables"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check, and what must have been found before it can be made."""

    name: str
    carry_out: Callable[[Case], Awaitable[list[Finding]]]
    needs: Need


CHECKS = (
    Check("settings", settings.settings, "nothing"),
    Check("files", settings.files, "settings"),
    Check("embedded", bundled.bundled, "settings"),
    Check("dns", network.dns, "settings"),
    Check("tcp", network.tcp, "settings"),
    Check("tls", network.tls, "port"),
    Check("authentication", network.authentication, "port"),
    Check("server", server.server, "connection"),
    Check("pgvector", server.pgvector, "connection"),
    Check("language", server.language, "connection"),
    Check("rights", server.rights, "connection"),
    Check("schema", tables.schema_version, "connection"),
    Check("dimensions", tables.dimensions, "connection"),
    Check("provider", tables.provider, "tables"),
    Check("index", indexes.validity, "tables"),
    Check("searches", indexes.use, "tables"),
    Check("tables", tables.tidiness, "tables"),
    Check("memory", tuning.memory, "connection"),
    Check("shm", tuning.shared_memory, "connection"),
    Check("connections", tuning.connections, "connection"),
    Check("round trip", tuning.round_trip, "connection"),
)

_REACHING = frozenset({"embedded", "dns", "tcp"})


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst of the findings."""
        worst: tuple[Status, ...] = ("failed", "warning")
        return next((s for s in worst if any(f.status == s for f in self.findings)), "ok")

    @property
    def repairs(self) -> tuple[Finding, ...]:
        """The findings that `--fix` would mend."""
        return tuple(finding for finding in self.findings if finding.fix is not None)

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data, for `--json`."""
        return {"status": self.status, "checks": [f.as_dict() for f in self.findings]}


async def examine() -> Report:
    """Run every check on the configuration that applies here; nothing is changed."""
    findings: list[Finding] = []
    async with _case() as case:
        for check in CHECKS:
            findings += await _one(check, case, findings)
    return Report(tuple(findings))


@asynccontextmanager
async def _case() -> AsyncIterator[Case]:
    case = Case(settings_files.find())
    try:
        yield case
    finally:
        if case.connection is not None:
            await case.connection.close()
        if case.server is not None:
            await asyncio.to_thread(case.server.close)


async def _one(check: Check, case: Case, before: list[Finding]) -> list[Finding]:
    missing = _missing(check, case, before)
    if missing:
        return [skipped(check.name, missing)]
    try:
        return await check.carry_out(case)
    except psycopg.Error as error:
        seen = str(translate(error, check.name))
        return [failed(check.name, seen, "see the message; the server's log says more")]


def _missing(check: Check, case: Case, before: list[Finding]) -> str:
    """Say what keeps a check from being made; nothing, when it can be."""
    if check.needs == "nothing":
        return ""
    if case.config is None:
        return "the settings could not be loaded"
    is_out_of_reach = any(f.status == "failed" and f.check in _REACHING for f in before)
    if check.needs == "settings":
        return "the server is not there" if is_out_of_reach and check.name in _REACHING else ""
    if is_out_of_reach and case.connection is None:
        return "the server is not there"
    if check.needs != "port" and case.connection is None:
        return "there is no connection"
    return "there are no tables to look at" if check.needs == "tables" and not case.store else ""


async def repair(report: Report) -> None:
    """Carry out the repairs that a report lists, on a connection of their own."""
    if not report.repairs:
        return
    async with _case() as case:
        await settings.settings(case)
        await bundled.bundled(case)
        await case.connect()
        if case.error is not None:
            refusal = await network.authentication(case)
            raise PostgresStorageError(refusal[0].seen) from case.error
        for finding in report.repairs:
            assert finding.fix is not None
            await _carry_out(finding, case)


async def _carry_out(finding: Finding, case: Case) -> None:
    assert finding.fix is not None
    try:
        await finding.fix.carry_out(case.database)
    except psycopg.Error as error:
        raise translate(error, finding.fix.title) from error
