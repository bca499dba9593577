"""What the three kinds of database need in the environment file and in config.yaml.

config.yaml gets only keys that the core's own `agent-brain config validate` knows; everything
else goes into the environment file, which overrides it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from agent_brain_postgres import database_url
from agent_brain_postgres.deploy.state import compose_project
from agent_brain_postgres.errors import SettingsError

Mode = Literal["docker", "embedded", "url"]
Variables = dict[str, str | None]

PREFIX = "AGENT_BRAIN_POSTGRES_"
# 127.0.0.1, not localhost: that may mean ::1, where the container does not listen.
HOST = "127.0.0.1"
NAME = "agent_brain"

_CONNECTION: Variables = {
    f"{PREFIX}{key}": None for key in ("HOST", "PORT", "DATABASE", "USER")
}


def current(variables: Mapping[str, str], settings: Mapping[str, Any]) -> Mode | None:
    """Tell which kind of database a project is set up for; None when it is for none."""
    if variables.get("DATABASE_URL"):
        return "url"
    embedded = variables.get(f"{PREFIX}EMBEDDED") or section(settings).get("embedded")
    if embedded and str(embedded).lower() not in ("false", "no", "off", "0"):
        return "embedded"
    return "docker" if variables.get("POSTGRES_PASSWORD") else None


def section(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give `storage.postgres` of a parsed config.yaml."""
    storage = settings.get("storage")
    found = storage.get("postgres") if isinstance(storage, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def docker_variables(
    state_dir: Path, present: Mapping[str, str], port: int, *, anew: bool = False
) -> Variables:
    """Name the variables of a container: those that compose reads, and the password for us.

    What is there already stays: a volume knows only the password that it was filled with. `anew`
    gives the project its own name and password all the same.
    """
    kept = {} if anew else present
    password = kept.get("POSTGRES_PASSWORD") or kept.get(f"{PREFIX}PASSWORD")
    password = password or secrets.token_urlsafe(24)
    return {
        "DATABASE_URL": None,
        **_CONNECTION,
        f"{PREFIX}EMBEDDED": None,
        "COMPOSE_PROJECT_NAME": kept.get("COMPOSE_PROJECT_NAME") or compose_project(state_dir),
        "POSTGRES_PORT": str(port),
        "POSTGRES_DB": present.get("POSTGRES_DB") or NAME,
        "POSTGRES_USER": present.get("POSTGRES_USER") or NAME,
        "POSTGRES_PASSWORD": password,
        f"{PREFIX}PASSWORD": kept.get(f"{PREFIX}PASSWORD") or password,
    }


def docker_settings(variables: Mapping[str, str | None]) -> dict[str, Any]:
    """Give the config.yaml of a container with these variables."""
    connection = {
        "host": HOST,
        "port": int(variables["POSTGRES_PORT"] or 5432),
        "database": variables["POSTGRES_DB"],
        "user": variables["POSTGRES_USER"],
    }
    return {"storage": {"backend": "postgres", "postgres": connection}}


def embedded_variables(present: Mapping[str, str]) -> Variables:
    """Name the variables of the embedded server; its data lies in the state directory."""
    switch = present.get(f"{PREFIX}EMBEDDED") or "true"
    return {"DATABASE_URL": None, f"{PREFIX}EMBEDDED": switch}


def embedded_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give the config.yaml of the embedded server.

    It needs no connection there; the core's validation asks for a host all the same.
    """
    connection = {} if "host" in section(settings) else {"host": "localhost", "database": NAME}
    return {"storage": {"backend": "postgres", "postgres": connection}}


def url_variables(url: str, previous: Mode | None, present: Mapping[str, str]) -> Variables:
    """Name the variables of a database elsewhere; the URL is kept whole, with its parameters."""
    variables: Variables = {**_CONNECTION, f"{PREFIX}EMBEDDED": None, "DATABASE_URL": url}
    if previous != "url" and f"{PREFIX}PASSWORD" in present:
        variables[f"{PREFIX}PASSWORD"] = None  # The former server's.
    return variables


def url_settings(url: str) -> dict[str, Any]:
    """Give the config.yaml of a database elsewhere, without its password."""
    try:
        parsed = database_url.parse(url).settings
    except database_url.MalformedURL as error:
        raise SettingsError(f"--database-url {error}") from None
    connection: dict[str, Any] = {
        "host": parsed.get("host", "localhost").split(",")[0],
        "port": _port(parsed.get("port", "5432")),
        "database": parsed.get("database", NAME),
        "user": parsed.get("user", NAME),
    }
    return {"storage": {"backend": "postgres", "postgres": connection}}


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise SettingsError(f"--database-url: port {text!r}; a port lies between 1 and 65535")
    return int(text)
