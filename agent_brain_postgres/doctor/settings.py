"""Checks of the settings and of the files that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent_brain_postgres import settings_files
from agent_brain_postgres.config import PostgresConfig, load_config
from agent_brain_postgres.deploy import env_file, yaml_file
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import Finding, failed, ok, warning
from agent_brain_postgres.errors import DeployError, SettingsError


async def settings(case: Case) -> list[Finding]:
    """Load the settings as the backend does, and say where each value came from."""
    try:
        case.config = load_config()
    except SettingsError as error:
        first, *others = str(error).splitlines()
        mend = "correct that setting, then run doctor again"
        return [Finding("settings", "failed", first, mend, tuple(others))]
    case.embedding = embedding_section(case.places.yaml)
    where = str(case.places.yaml) if case.places.yaml else "no config.yaml"
    environment = str(case.places.env_file) if case.places.env_file else "no environment file"
    return [ok("settings", f"{where}; {environment}", *described(case.config))]


def described(config: PostgresConfig) -> Iterator[str]:
    """List each setting that does not have its default, with its source; the password masked."""
    values = config.masked()
    for key, source in config.sources.items():
        if source != "default":
            yield f"{key} = {values[key]} ({source})"


def embedding_section(path: Path | None) -> dict[str, Any]:
    """Read `embedding` of a config.yaml: the provider that the core is configured for."""
    if path is None:
        return {}
    try:
        section = yaml_file.parse(path.read_text("utf-8-sig"), str(path)).get("embedding")
    except (OSError, UnicodeDecodeError, SettingsError):
        return {}  # What is wrong with the file was said when it was loaded.
    return section if isinstance(section, dict) else {}


async def files(case: Case) -> list[Finding]:
    """Check that nobody else reads the password, and that compose and we agree on it."""
    path = case.places.env_file
    if path is None:
        return [ok("files", "no environment file")]
    found = [*_mode(path), *_agreement(path, case)]
    return found or [ok("files", f"{path} is readable by its owner only")]


def _mode(path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077 and settings_files.ENV_FILES[0] == path.name:
        yield warning(
            "files", f"{path} has mode {mode:o}: others may read the password", f"chmod 600 {path}"
        )


def _agreement(path: Path, case: Case) -> Iterator[Finding]:
    try:
        variables = env_file.values(path)
    except DeployError as error:
        yield failed("files", str(error), "make it readable")
        return
    if "POSTGRES_PASSWORD" not in variables or not case.is_local or variables.get("DATABASE_URL"):
        return
    ours = variables.get("AGENT_BRAIN_POSTGRES_PASSWORD")
    if ours is not None and ours != variables["POSTGRES_PASSWORD"]:
        yield warning(
            "files",
            f"{path} gives the container another password than this package",
            "set POSTGRES_PASSWORD and AGENT_BRAIN_POSTGRES_PASSWORD to the database's password",
        )
    port = variables.get("POSTGRES_PORT", "5432")
    if not case.settings.embedded and str(case.settings.port) != port:
        yield warning(
            "files",
            f"the container is published on port {port} ({path}), but the settings say "
            f"{case.settings.port} ({case.settings.sources['port']})",
            f"set port: {port}",
        )
    if "COMPOSE_PROJECT_NAME" not in variables:
        yield warning(
            "files",
            f"{path} does not set COMPOSE_PROJECT_NAME: every project's compose directory has the "
            "same name, so projects would share one container",
            "agent-brain-postgres init",
        )
