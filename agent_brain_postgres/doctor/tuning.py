"""Checks of what makes a healthy server slow: memory, connections, distance."""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_brain_postgres import build, index_state, ladder
from agent_brain_postgres.deploy import env_file, yaml_file
from agent_brain_postgres.deploy.template import COMPOSE_NAME
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import Finding, failed, ok, warning
from agent_brain_postgres.errors import StorageError

if TYPE_CHECKING:
    from typing_extensions import LiteralString

MEMORY: LiteralString = """
SELECT name, setting::bigint * CASE unit WHEN '8kB' THEN 8192 WHEN 'kB' THEN 1024 ELSE 1 END
FROM pg_catalog.pg_settings
WHERE name IN ('shared_buffers', 'work_mem', 'maintenance_work_mem')
"""

CONNECTIONS: LiteralString = """
SELECT pg_catalog.current_setting('max_connections')::int
         - pg_catalog.current_setting('superuser_reserved_connections')::int,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()),
       (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user),
       (SELECT datconnlimit FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database())
"""

SHM = Path("/dev/shm")  # noqa: S108 - measured, not written to
MEGABYTE = 1 << 20
LEAST_WORK_MEM = 4 * MEGABYTE
ROUND_TRIPS = 7
SLOW_LOCAL, SLOW_REMOTE = 5.0, 50.0  # milliseconds


async def memory(case: Case) -> list[Finding]:
    """Compare memory settings with what searches and an index build need."""
    values = dict(await case.rows(MEMORY))
    available = build_memory(values)
    seen = ", ".join(f"{name} {_size(value)}" for name, value in sorted(values.items()))
    if values["work_mem"] < LEAST_WORK_MEM:
        return [warning("memory", f"{seen}: sorts go to disk", _set(case, "work_mem", "16MB"))]
    needed = await graph_size(case)
    if available < needed:
        what = f"a build of the vector index needs {_size(needed)}"
        mend = _set(case, "maintenance_work_mem", _size(_rounded(needed)))
        return [warning("memory", f"{seen}; {what}", mend)]
    return [ok("memory", seen)]


def build_memory(values: dict[str, int]) -> int:
    """Give what an index build allows itself at most, as `build` does."""
    allowed = max(1024 * MEGABYTE, 8 * values["shared_buffers"])
    return max(values["maintenance_work_mem"], min(build.MAX_MEMORY, allowed))


def _set(case: Case, name: str, value: str) -> str:
    """Say how to change a setting of the server."""
    if (up := case.compose("up --detach --wait")) is not None:
        # The template gives the setting on the command line, which nothing else overrides.
        return f"set POSTGRES_{name.upper()}={value} in {env_file.NAME}, then {up}"
    if case.settings.embedded:
        return "use a server of your own: agent-brain-postgres init --docker"
    change = f"ALTER SYSTEM SET {name} = '{value}'"
    return case.psql(change, "SELECT pg_reload_conf()", as_superuser=True)


async def graph_size(case: Case) -> int:
    """Estimate the bytes of the vector index while it is built; 0 when none is due."""
    store = case.store
    if store is None or store.dimensions is None:
        return 0
    rows = (await index_state.read(case.database, store)).rows
    if rows < ladder.crossover(store.dimensions):
        return 0
    return build.memory(store, rows, case.settings.hnsw_m)


async def shared_memory(case: Case) -> list[Finding]:
    """Compare /dev/shm, where parallel builds keep their graph, with maintenance_work_mem."""
    kind = await case.row("SELECT pg_catalog.current_setting('dynamic_shared_memory_type')")
    maintenance = dict(await case.rows(MEMORY))["maintenance_work_mem"]
    needed = max(maintenance, await graph_size(case))
    if kind is None or kind[0] != "posix":
        return [ok("shm", f"{kind[0] if kind else 'none'}: /dev/shm is not used")]
    size, where = _container_shm(case) or _own_shm(case) or (None, "")
    if size is None:
        return [ok("shm", "the server's /dev/shm is not visible from here")]
    if size < needed:
        seen = f"{SHM} has {_size(size)} ({where}); a parallel index build needs {_size(needed)}"
        mend = _set(case, "shm_size", _size(_rounded(2 * needed)).lower())
        return [warning("shm", f"{seen}, without it one process builds alone", mend)]
    return [ok("shm", f"{SHM} has {_size(size)} ({where})")]


def _container_shm(case: Case) -> tuple[int, str] | None:
    """Read `shm_size` of the project's compose file."""
    directory = case.places.state_directory
    if directory is None or case.settings.embedded or not case.is_local:
        return None
    path = directory / COMPOSE_NAME
    try:
        document = yaml_file.parse(path.read_text("utf-8"), str(path))
        variables = {**env_file.values(directory / env_file.NAME), **os.environ}
    except (OSError, StorageError):
        return None
    services = document.get("services")
    service: Any = services.get("postgres") if isinstance(services, dict) else None
    text = str(service.get("shm_size", "64mb")) if isinstance(service, dict) else ""
    size = parse_size(_substituted(text, variables))
    return None if size is None else (size, str(path))


def _substituted(text: str, variables: dict[str, str]) -> str:
    """Do what compose does with `${NAME:-default}`."""
    return re.sub(
        r"\$\{(\w+)(?::?-([^}]*))?\}", lambda m: variables.get(m[1]) or m[2] or "", text
    )


def parse_size(text: str) -> int | None:
    """Read a size as compose writes it: a number and b, k, m or g."""
    match = re.fullmatch(r"\s*(\d+)\s*([kmg]?)b?\s*", text.lower())
    if match is None:
        return None
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def _own_shm(case: Case) -> tuple[int, str] | None:
    """Measure this machine's, where the embedded server runs."""
    if not case.settings.embedded or sys.platform == "win32" or not SHM.exists():
        return None
    status = os.statvfs(SHM)
    return status.f_blocks * status.f_frsize, "this machine"


async def connections(case: Case) -> list[Finding]:
    """Compare the pool with the connections that the server can give."""
    row = await case.row(CONNECTIONS)
    assert row is not None
    allowed, used, *limits = row
    allowed = min([allowed, *(limit for limit in limits if limit >= 0)])
    wanted = case.settings.pool_max
    seen = f"pool_max {wanted}; the server allows {allowed}, {used} in use now"
    if case.settings.pool_size > allowed:
        return [failed("connections", seen, f"set pool_size and pool_max to {max(1, allowed // 2)}")]
    if wanted > allowed:
        return [warning("connections", seen, f"set pool_max to at most {allowed}")]
    if used + wanted > allowed:
        mend = "lower pool_max, or raise max_connections"
        return [warning("connections", f"{seen}: a full pool would not fit beside them", mend)]
    return [ok("connections", seen)]


async def round_trip(case: Case) -> list[Finding]:
    """Time the smallest statement: every search costs at least this."""
    times: list[float] = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        await case.row("SELECT 1")
        times.append((time.perf_counter() - start) * 1000)
    median = statistics.median(times)
    seen = f"{median:.2f} ms (median of {ROUND_TRIPS}, slowest {max(times):.2f} ms)"
    limit = SLOW_LOCAL if case.is_local else SLOW_REMOTE
    if median > limit:
        mend = "run the server nearer to the database, or look for load on either"
        return [warning("round trip", f"{seen}: slow", mend)]
    return [ok("round trip", seen)]


def _rounded(size: int) -> int:
    """Round up to a power of two of megabytes."""
    return MEGABYTE << max(0, (max(1, size) - 1) // MEGABYTE).bit_length()


def _size(size: int) -> str:
    if size >= 1 << 30 and size % (1 << 30) == 0:
        return f"{size >> 30}GB"
    return f"{size / MEGABYTE:.0f}MB" if size >= MEGABYTE else f"{size >> 10}kB"
