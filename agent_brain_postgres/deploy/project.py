"""A project's deployment, put together: from what is there to what should be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_brain_postgres import settings_files
from agent_brain_postgres.deploy import env_file, files, ignore_file, modes, ports, yaml_file
from agent_brain_postgres.deploy.modes import Mode, Variables
from agent_brain_postgres.deploy.plan import CONFIG_NAME, EMBEDDED_NAME, Change, Plan
from agent_brain_postgres.deploy.template import COMPOSE_NAME, template_text
from agent_brain_postgres.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Present:
    """What a state directory holds."""

    state_dir: Path
    environment: files.TextFile | None
    config: files.TextFile | None
    inherited: Path | None  # The user's own configuration, which a new config.yaml would hide.

    @classmethod
    def read(cls, state_dir: Path) -> Present:
        """Read the files of a state directory, which need not exist."""
        config = files.read(state_dir / CONFIG_NAME)
        inherited = _personal_configuration() if config is None else None
        return cls(state_dir, files.read(state_dir / env_file.NAME), config, inherited)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the environment file."""
        return env_file.values(self.state_dir / env_file.NAME)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of config.yaml."""
        if self.config is None:
            return {}
        return yaml_file.parse(self.config.text, str(self.state_dir / CONFIG_NAME))

    @property
    def mode(self) -> Mode | None:
        """The kind of database that the project is set up for."""
        return modes.current(self.variables, self.settings)


def prepare(
    state_dir: Path,
    mode: Mode | None = None,
    *,
    port: int | None = None,
    database_url: str | None = None,
    force: bool = False,
) -> Plan:
    """Plan the files of a project; nothing is written yet, except that its port is reserved.

    `mode` None keeps the kind of database that the project has (at first: docker). `port` None
    keeps the port, or picks a free one. With `force`, a compose file that was edited is replaced,
    and a project that was copied from another gets a port, a name and a password of its own.
    """
    state_dir = state_dir.expanduser().absolute()
    present = Present.read(state_dir)
    if database_url is not None:
        return _url(present, database_url)
    mode = mode or present.mode or "docker"
    if mode == "url":
        return _url(present, present.variables.get("DATABASE_URL", ""))
    if mode == "embedded":
        return _embedded(present)
    return _docker(present, port, force)


def _docker(present: Present, port: int | None, force: bool) -> Plan:
    has = present.variables
    old = int(has["POSTGRES_PORT"]) if has.get("POSTGRES_PORT", "").isdecimal() else None
    owner = ports.reserved().get(old) if old is not None else None
    is_copy = owner is not None and owner != present.state_dir.resolve()
    anew = is_copy and force
    if old is None or anew or port not in (None, old):
        chosen = ports.reserve(present.state_dir, port)
    else:
        chosen = old
        ports.keep(present.state_dir, chosen)
    notes = _copy_notes(owner, chosen) if is_copy and not anew else ()
    try:
        variables = modes.docker_variables(present.state_dir, has, chosen, anew=anew)
        plan = _plan(present, "docker", variables, modes.docker_settings(variables))
        compose, compose_notes = _compose_change(present.state_dir, force)
    except BaseException:
        if chosen != old:
            ports.release(present.state_dir)
        raise
    return replace(
        plan,
        changes=(compose, *plan.changes),
        port=chosen,
        port_is_new=chosen != old,
        notes=(*notes, *compose_notes, *plan.notes),
    )


def _copy_notes(owner: Path | None, port: int) -> tuple[str, ...]:
    return (
        f"port {port} belongs to the project in {owner}, from which this one seems to be copied: "
        "both would use one database; init --force gives this one its own",
    )


def _compose_change(state_dir: Path, force: bool) -> tuple[Change, tuple[str, ...]]:
    path = state_dir / COMPOSE_NAME
    before = files.read(path)
    wanted = files.TextFile(template_text())
    if before is None or before.text == wanted.text:
        return Change(path, before, before or wanted, summary="the bundled template"), ()
    if force:
        return Change(path, before, wanted), ()
    note = f"{path} differs from the bundled template and stays; init --force replaces it"
    return Change(path, before, before), (note,)


def _embedded(present: Present) -> Plan:
    variables = modes.embedded_variables(present.variables)
    return _plan(present, "embedded", variables, modes.embedded_settings(present.settings))


def _url(present: Present, url: str) -> Plan:
    if not url.strip():
        raise SettingsError("--database-url is empty; give postgresql://user:password@host/database")
    variables = modes.url_variables(url, present.mode, present.variables)
    return _plan(present, "url", variables, modes.url_settings(url))


def _plan(present: Present, mode: Mode, variables: Variables, settings: dict[str, Any]) -> Plan:
    if mode != "embedded" and modes.section(present.settings).get("embedded"):
        variables = {**variables, f"{modes.PREFIX}EMBEDDED": "false"}
    changes = [_environment_change(present, variables), _config_change(present, settings)]
    ignore = _ignore_change(present.state_dir, mode)
    return Plan(
        present.state_dir,
        mode,
        (*changes, *([ignore] if ignore else ())),
        notes=tuple(_notes(present)),
    )


def _environment_change(present: Present, variables: Variables) -> Change:
    before = present.environment or files.TextFile("")
    after = replace(before, text=env_file.merged(before.text, variables))
    path = present.state_dir / env_file.NAME
    return Change(path, present.environment, after, files.PRIVATE)


def _config_change(present: Present, settings: dict[str, Any]) -> Change:
    path = present.state_dir / CONFIG_NAME
    base, mode = present.config, None
    if present.inherited is not None:
        base, mode = files.read(present.inherited), files.PRIVATE
    base = base or files.TextFile("")
    source = str(present.inherited or path)
    after = replace(base, text=yaml_file.merged(base.text, settings, source))
    return Change(path, present.config, after, mode)


def _ignore_change(state_dir: Path, mode: Mode) -> Change | None:
    secret = state_dir / env_file.NAME
    path = ignore_file.find(secret)
    if path is None:
        return None
    before = ignore_file.load(path)
    text = ignore_file.with_entry(before.text, path, secret)
    if mode == "embedded":
        text = ignore_file.with_entry(text, path, state_dir / EMBEDDED_NAME, "/")
    return Change(path, before, replace(before, text=text))


def _personal_configuration() -> Path | None:
    """Find the configuration of the user, as opposed to one of a project."""
    found = settings_files.find_yaml()
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        home = Path.home()
    except RuntimeError:
        return None
    configuration = Path(base) if base else home / ".config"
    personal = (configuration / "agent-brain", home / ".agent-brain")
    return found if found is not None and found.parent in personal else None


def _notes(present: Present) -> Iterator[str]:
    if present.inherited is not None:
        yield (
            f"{present.state_dir / CONFIG_NAME} starts as a copy of {present.inherited}, which it "
            "will hide from this project"
        )
    config = present.state_dir / CONFIG_NAME
    found = settings_files.find_yaml()
    if found is not None and found != present.inherited and found.resolve() != config.resolve():
        yield f"{found} is found before {config} from here; set AGENT_BRAIN_STATE_DIR to avoid that"
    for name in ("DATABASE_URL", f"{modes.PREFIX}HOST", f"{modes.PREFIX}PORT"):
        if os.environ.get(name):
            yield f"the environment variable {name} is set here and overrides these files"
