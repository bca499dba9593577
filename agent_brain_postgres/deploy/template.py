"""The compose template that this package carries."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable
else:
    from importlib.abc import Traversable

from agent_brain_postgres.deploy import files
from agent_brain_postgres.errors import DeployError

TEMPLATE_NAME = "docker-compose.postgres.yml"
COMPOSE_NAME = "docker-compose.yml"  # what it is called in a project


def template() -> Traversable:
    """Find the compose template, in a wheel, an sdist install or an editable one alike."""
    package = resources.files("agent_brain_postgres")
    packaged = package / "templates" / TEMPLATE_NAME
    if packaged.is_file():
        return packaged
    # A checkout on a file system without links has `templates` beside the package only.
    return Path(str(package)).parent / "templates" / TEMPLATE_NAME


def template_text() -> str:
    """Give the compose template's text."""
    return template().read_text(encoding="utf-8")


def copy_template(destination: Path, *, force: bool = False) -> Path:
    """Copy the compose template to a file, or into a directory as `docker-compose.yml`.

    A file that differs is an error; with `force` it is replaced, and a backup is kept.
    """
    path = destination / COMPOSE_NAME if destination.is_dir() else destination
    present = files.read(path)
    wanted = files.TextFile(template_text())
    if present is not None and present.text == wanted.text:
        return path
    if present is not None:
        if not force:
            raise DeployError(f"{path} exists and differs from the template; --force replaces it")
        files.back_up(path)
    files.write(path, wanted)
    return path
