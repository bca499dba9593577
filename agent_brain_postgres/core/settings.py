"""Which backend the core would choose: its rules, read from the same places."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from dotenv import dotenv_values

from agent_brain_postgres import settings_files

VARIABLE = "AGENT_BRAIN_STORAGE_BACKEND"
DEFAULT = "chroma"


def config_file() -> Path | None:
    """Return the configuration file that the core would read."""
    return settings_files.find_yaml()


def effective_backend() -> tuple[str, str]:
    """Give the name of the backend that the core would choose, and what makes it do so."""
    if named := os.environ.get(VARIABLE):
        return named.lower(), f"{VARIABLE} in the environment"
    if named := dotenv_values(".env").get(VARIABLE):
        return named.lower(), f"{VARIABLE} in .env"
    path = config_file()
    if path is None:
        return DEFAULT, "no configuration file"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return str(document["storage"]["backend"]), str(path)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return DEFAULT, f"{path} names none"
