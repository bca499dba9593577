"""An empty project to look for settings in, and the files that tests put there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_brain_postgres.config import PostgresConfig, load_config
from agent_brain_postgres.errors import SettingsError


def empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter an empty project below an empty home, with a clean environment."""
    for name in [*os.environ]:
        if name.startswith(("AGENT_BRAIN_", "DOC_SERVE_", "XDG_", "PG")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    directory = tmp_path / "home" / "my project"
    directory.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(directory)
    return directory


def write_yaml(path: Path, **settings: Any) -> Path:
    document = {"storage": {"backend": "postgres", "postgres": settings}}
    return write(path, yaml.safe_dump(document, allow_unicode=True))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def refusal(**arguments: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_config(**arguments)
    return str(caught.value)


def password(config: PostgresConfig) -> str | None:
    return config.password.get_secret_value() if config.password else None
