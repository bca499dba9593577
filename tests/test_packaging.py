"""What `python -m build` makes, and what a new environment gets from it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

TEMPLATE = "agent_brain_postgres/templates/docker-compose.postgres.yml"

HOST = """
import asyncio, json, sys
from importlib import resources
from importlib.metadata import entry_points
import pluggy

assert (resources.files("agent_brain_postgres") / "templates" / "docker-compose.postgres.yml").is_file()
(by_name,) = entry_points(group="agent_brain.storage", name="postgres")
manager = pluggy.PluginManager("agent_brain")
assert manager.load_setuptools_entrypoints("agent_brain.storage", "postgres") == 1
assert manager.get_plugin("postgres") is by_name.load()

async def main():
    settings = json.loads(sys.argv[1])
    backend = by_name.load()(settings, embedding_dimensions=2)
    await backend.initialize()
    await backend.upsert_documents(["a", "b"], [[1, 0], [0, 1]], ["left", "right"], [{}, {}])
    print((await backend.vector_search([0.1, 0.9], 1))[0].chunk_id)
    await backend.close()

asyncio.run(main())
"""


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    checkout = Path(__file__).resolve().parent.parent
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", folder, checkout)
    return folder


def _wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_twine_accepts_both(built: Path) -> None:
    assert len(list(built.iterdir())) == 2
    _run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    names = zipfile.ZipFile(_wheel(built)).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"agent_brain_postgres"}
    assert TEMPLATE in names
    assert "agent_brain_postgres/py.typed" in names
    endings = {Path(name).suffix for name in names if ".dist-info" not in name}
    assert endings <= {".py", ".typed", ".yml"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_builds_and_tests_it(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {
        "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", TEMPLATE,
        "tests/conftest.py", "agent_brain_postgres/py.typed",
    }
    assert wanted <= names
    assert not [n for n in names if "__pycache__" in n or n.startswith((".git/", ".venv", "dist"))]


def test_the_metadata_names_dependencies_extras_and_the_entry_point(built: Path) -> None:
    archive = zipfile.ZipFile(_wheel(built))
    (metadata_name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(metadata_name).decode())
    required = [r for r in metadata.get_all("Requires-Dist") or [] if "extra ==" not in r]
    assert all(">=" in r for r in required)
    assert {"embedded", "demo", "api", "dev"} <= set(metadata.get_all("Provides-Extra") or [])
    entry_points = archive.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
    assert "[agent_brain.storage]\npostgres = agent_brain_postgres.plugin:plugin" in entry_points


def test_a_new_environment_finds_the_backend_by_name_and_runs_it(
    built: Path, dsn: str, tmp_path: Path
) -> None:
    """The wheel alone is new; its dependencies are those of this environment."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    _run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet",
        "--target", site, _wheel(built),
    )
    own_site = next(p for p in sys.path if p.endswith("site-packages"))
    # After the environment's own folder, and without the .pth files that make installs editable.
    (site / "dependencies.pth").write_text(own_site + os.linesep)
    target = conninfo_to_dict(dsn)
    settings = (
        f'{{"host": "{target["host"]}", "port": {target.get("port") or 5432}, '
        f'"user": "{target["user"]}", "database": "{target["dbname"]}"}}'
    )
    located = _run(
        python, "-c", "import agent_brain_postgres as a; print(a.__file__)", cwd=tmp_path
    )
    assert str(site) in located
    assert _run(python, "-W", "error", "-c", HOST, settings, cwd=tmp_path).strip() == "b"
