"""The .pth file that installs the finder whenever this environment's Python starts."""

from __future__ import annotations

import site
import sysconfig
from importlib import resources
from pathlib import Path

FILE_NAME = "agent_brain_postgres_core.pth"


def location() -> Path:
    """Give the path of the file in the running environment, whether or not it is there.

    An ordinary user's Python that may not be written to has its user site-packages.
    """
    found = existing()
    return found[0] if found else _directories()[0] / FILE_NAME


def existing() -> list[Path]:
    """List the files that are there, of every directory that this interpreter reads."""
    return [path for d in _directories() if (path := d / FILE_NAME).is_file()]


def _directories() -> list[Path]:
    own = Path(sysconfig.get_path("purelib"))
    directories = [own]
    if site.ENABLE_USER_SITE:
        directories.append(Path(site.getusersitepackages()))
    return directories


def content() -> str:
    """Build the file: comments, and the bootstrap as the one line that `site` executes."""
    source = resources.files("agent_brain_postgres.core").joinpath("bootstrap.py").read_text()
    return (
        "# Written by `agent-brain-postgres enable`; `agent-brain-postgres disable` removes it.\n"
        "# Agent Brain's server then finds its PostgreSQL backend in agent-brain-postgres.\n"
        "# Nothing is imported before the server asks; without the package this does nothing.\n"
        f"import sys; exec({source!r}, {{}})\n"
    )


def write() -> Path:
    """Write the file and give its path; in the user's site-packages if need be."""
    refusal: OSError | None = None
    for directory in _directories():
        path = directory / FILE_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(content(), encoding="utf-8")
        except OSError as error:
            refusal = refusal or error
        else:
            return path
    assert refusal is not None
    raise refusal


def remove() -> list[Path]:
    """Delete the file wherever it is, and give the paths it had."""
    paths = existing()
    for path in paths:
        path.unlink()
    return paths


def is_current(path: Path) -> bool:
    """Say whether the file is what this version would write."""
    return path.read_text(encoding="utf-8") == content()
