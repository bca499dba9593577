"""Where settings come from, and which source wins.

Strongest first: explicit arguments, the process environment, the environment file, the host's
YAML. In the environment and in the environment file ``DATABASE_URL`` overrides the connection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from agent_brain_postgres import database_url, settings_files
from agent_brain_postgres.errors import SettingsError
from agent_brain_postgres.secret import PREFIX, UnresolvedSecret, resolve_secret
from agent_brain_postgres.setting_types import switch
from agent_brain_postgres.settings_errors import ARGUMENT, nearest

logger = logging.getLogger(__name__)

VARIABLE_PREFIX = "AGENT_BRAIN_POSTGRES_"
URL_VARIABLE = "DATABASE_URL"

_warned: set[str] = set()


@dataclass
class Layers:
    """Settings laid over each other: each `add` is stronger than what is there already."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    state_directory: Path | None = None

    def add(self, values: Mapping[str, Any], origin: str | Mapping[str, str]) -> None:
        """Lay `values` on top; `origin` says where all of them, or each of them, came from."""
        if not values.keys().isdisjoint({"pool_max", "pool_max_overflow"}):
            self._forget("pool_max", "pool_max_overflow")
        if not values.keys().isdisjoint({"host", "port"}):
            for name in ("port", "hostaddr"):
                self.options.pop(name, None)
        for key, value in values.items():
            self.values[key] = value
            self.origins[key] = origin if isinstance(origin, str) else origin[key]

    def add_url(
        self, url: str, origin: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Replace the connection by the URL's; what the URL leaves out takes its default."""
        try:
            parsed = database_url.parse(resolve_secret(url, environment))
        except (database_url.MalformedURL, UnresolvedSecret) as error:
            raise SettingsError(f"{origin} {error}") from None
        self._forget("embedded", *database_url.CONNECTION)
        self.add(parsed.settings, origin)
        self.options = parsed.options

    def resolve_password(self, environment: Mapping[str, str]) -> None:
        """Follow a reference to the password, also into the environment file."""
        password = self.values.get("password")
        if not isinstance(password, str) or not password.startswith(PREFIX):
            return
        try:
            self.values["password"] = resolve_secret(password, environment)
        except UnresolvedSecret as error:
            where = self.origins["password"]
            raise SettingsError(f"password cannot be used ({where}); {error}") from None

    def _forget(self, *keys: str) -> None:
        for key in keys:
            self.values.pop(key, None)
            self.origins.pop(key, None)


class Level(NamedTuple):
    """One set of environment variables, and how a message names them."""

    variables: Mapping[str, str]
    variable: str
    url: str


def gather(
    settings: Mapping[str, Any] | None,
    arguments: Mapping[str, Any],
    names: Iterable[str],
) -> Layers:
    """Collect the settings called `names`; `arguments` may also hold ``database_url``."""
    names = frozenset(names)
    places = settings_files.find()
    layers = Layers(state_directory=places.state_directory)
    layers.add(*_host_settings(settings, places.yaml))
    in_file = settings_files.read_env_file(places.env_file) if places.env_file else {}
    environment = {**in_file, **os.environ}
    label = f".env file {places.env_file}"
    levels = [
        Level(in_file, label, f"{URL_VARIABLE} in {label}"),
        Level(os.environ, "env: {}", URL_VARIABLE),
    ]
    for level in levels:
        _add_level(layers, level, names, environment)
    given = {key: value for key, value in arguments.items() if value is not None}
    url = given.pop("database_url", None)
    if url:
        layers.add_url(url, f"{URL_VARIABLE} ({ARGUMENT})", environment)
    layers.add(given, ARGUMENT)
    layers.resolve_password(environment)
    return layers


def _host_settings(
    settings: Mapping[str, Any] | None, path: Path | None
) -> tuple[Mapping[str, Any], str]:
    if settings is None:
        section = settings_files.read_yaml(path) if path else {}
        origin = f"yaml: {path}"
    else:
        section = settings_files.checked(settings, "host settings")
        origin = _origin_of(section, path)
    embedded = section.get("embedded")
    if path and isinstance(embedded, str) and _is_relative_directory(embedded):
        section = {**section, "embedded": str(path.parent / embedded)}
    return section, origin


def _origin_of(section: Mapping[str, Any], path: Path | None) -> str:
    # The host read a file and handed over its section: name that file, where it is the one.
    try:
        same = path is not None and settings_files.read_yaml(path) == section
    except SettingsError:
        same = False
    return f"yaml: {path}" if same else "host settings"


def _is_relative_directory(text: str) -> bool:
    return bool(text) and switch(text) is None and not Path(text).expanduser().is_absolute()


def _add_level(
    layers: Layers, level: Level, names: frozenset[str], environment: Mapping[str, str]
) -> None:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable, value in level.variables.items():
        if not variable.startswith(VARIABLE_PREFIX) or not value:
            continue  # compose files pass unset variables on as empty ones
        key = variable.removeprefix(VARIABLE_PREFIX).lower()
        if key in names:
            values[key], origins[key] = value, level.variable.format(variable)
        else:
            _warn_of_a_typo(variable, key, names)
    layers.add(values, origins)
    url = level.variables.get(URL_VARIABLE, "").strip()
    if url:
        layers.add_url(url, level.url, environment)
        # A password beside the URL belongs to it; one from a weaker source may be another server's.
        if "password" in values and "password" not in layers.values:
            layers.add({"password": values["password"]}, origins)


def _warn_of_a_typo(variable: str, key: str, names: frozenset[str]) -> None:
    # Not an error: other programs (a compose file, say) may own a variable of that prefix.
    suggestion = nearest(key, names)
    if suggestion and variable not in _warned:
        _warned.add(variable)
        known = VARIABLE_PREFIX + suggestion.upper()
        logger.warning("%s is no setting and is ignored; did you mean %s?", variable, known)
