"""The files that settings are read from: where the core looks, and how they are read."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent_brain_postgres.errors import SettingsError

logger = logging.getLogger(__name__)

ENV_FILES = (".env.agent-brain", ".env")
STATE_DIRECTORIES = (Path(".agent-brain"), Path(".claude") / "agent-brain")


class Places(NamedTuple):
    """The files that apply here; None where there is none."""

    yaml: Path | None
    env_file: Path | None
    state_directory: Path | None


def find() -> Places:
    """Look for the files, from the working directory and the environment."""
    yaml = find_yaml()
    state = find_state_directory()
    directories = [Path.cwd(), *([state] if state else []), *([yaml.parent] if yaml else [])]
    return Places(yaml, _find_env_file(directories), state)


def find_yaml() -> Path | None:
    """Return the configuration file that the core would read."""
    named = os.environ.get("AGENT_BRAIN_CONFIG")
    if named and not _is_there(Path(named)):
        logger.warning("AGENT_BRAIN_CONFIG names a file that does not exist: %s", named)
    return next((path for path in _yaml_candidates(named) if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    # Unlike Path.exists(), no error for a directory that we may not look into.
    return os.access(path, os.F_OK)


def _yaml_candidates(named: str | None) -> Iterator[Path]:
    if named:
        yield Path(named)
    if state := _state_variable():
        yield Path(state) / "config.yaml"
    yield Path.cwd() / "config.yaml"
    for directory in _upwards():
        for state_directory in STATE_DIRECTORIES:
            yield directory / state_directory / "config.yaml"
    for directory in _user_directories():
        yield directory / "config.yaml"
        yield directory / "agent-brain.yaml"


def find_state_directory() -> Path | None:
    """Return the project's state directory: the variable's, else the nearest one upwards."""
    if state := _state_variable():
        return Path(state)
    candidates = (above / state for above in _upwards() for state in STATE_DIRECTORIES)
    return next((path for path in candidates if _is_there(path) and path.is_dir()), None)


def user_data_directory() -> Path:
    """Return where a user's data of Agent Brain belongs when there is no project."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "agent-brain"


def _state_variable() -> str | None:
    return os.environ.get("AGENT_BRAIN_STATE_DIR") or os.environ.get("DOC_SERVE_STATE_DIR")


def _upwards() -> Iterator[Path]:
    here = Path.cwd()
    # Like the core, not the root itself.
    return (path for path in (here, *here.parents) if path != path.parent)


def _user_directories() -> Iterator[Path]:
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        home = Path.home()
    except RuntimeError:  # an account without a home directory
        home = None
    if base:
        yield Path(base) / "agent-brain"
    elif home:
        yield home / ".config" / "agent-brain"
    if home:
        yield home / ".agent-brain"


def _find_env_file(directories: list[Path]) -> Path | None:
    # Many projects have an .env of their own. One without our variables is not ours, and one with
    # nothing but a DATABASE_URL may mean the project's own database: an .env.agent-brain in the
    # state directory knows better.
    return _first(directories, b"AGENT_BRAIN_POSTGRES_") or _first(directories, b"DATABASE_URL")


def _first(directories: list[Path], needed: bytes) -> Path | None:
    for directory in directories:
        for name in ENV_FILES:
            path = directory / name
            if _is_there(path) and path.is_file() and (name == ENV_FILES[0] or needed in _content(path)):
                return path
    return None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is ignored", path, error.strerror)
        return b""


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of an environment file; the process environment stays as it is."""
    from dotenv.main import DotEnv, resolve_variables
    from dotenv.parser import parse_stream

    text = _read_text(path)
    plain = DotEnv(None, stream=io.StringIO(text), interpolate=False).dict()
    # As in a shell and in compose, and unlike python-dotenv: no $ is special in single quotes.
    literal = {
        binding.key
        for binding in parse_stream(io.StringIO(text))
        if binding.key and binding.original.string.partition("=")[2].lstrip().startswith("'")
    }
    expanded = resolve_variables(plain.items(), override=False)
    chosen = {key: plain[key] if key in literal else expanded[key] for key in plain}
    return {key: value for key, value in chosen.items() if value is not None}


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Return the section ``storage.postgres`` of a configuration file; {} when there is none."""
    import yaml

    text = _read_text(path)
    where = ""
    document: Any = None
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else " "
    except (yaml.YAMLError, ValueError, RecursionError):
        where = " "
    if where:  # outside the handler, and without YAML's own words: they may quote a password
        raise SettingsError(
            f"{path} is not valid YAML{where.rstrip()}; "
            "values with special characters must be in quotes"
        )
    return _section(document, path)


def _section(document: Any, path: Path) -> Mapping[str, Any]:
    origin = f"yaml: {path}"
    storage = _mapping(document, "the file", origin).get("storage")
    return checked(_mapping(storage, "storage", origin).get("postgres"), origin)


def checked(section: Any, origin: str) -> Mapping[str, Any]:
    """Return a section ``storage.postgres`` whose keys are all text."""
    settings = _mapping(section, "storage.postgres", origin)
    for key in settings:
        if not isinstance(key, str):
            raise SettingsError(f"unknown setting {key!r} ({origin}); a setting's name is text")
    return settings


def _mapping(value: Any, name: str, origin: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise SettingsError(
        f"{name} is {_kind(value)} ({origin}); allowed: a mapping, as in "
        "'storage: {backend: postgres, postgres: {host: localhost}}'"
    )


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else f"a single value of type {type(value).__name__}"


def _read_text(path: Path) -> str:
    reason = ""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    # Outside the handler: the decoding error holds the whole file, passwords included.
    raise SettingsError(f"{path} cannot be read: {reason}")
