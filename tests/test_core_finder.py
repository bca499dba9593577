"""The finder and its .pth file, with a small package in the place of the core.

The real core is tested in `core/`, in an environment of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from agent_brain_postgres.core import pth

ROOT = Path(pth.__file__).parents[2]
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))

CORE = {
    "agent_brain_server/__init__.py": "",
    "agent_brain_server/models/__init__.py": "",
    "agent_brain_server/models/query.py": "",
    "agent_brain_server/providers/__init__.py": "",
    "agent_brain_server/providers/exceptions.py": "class ProviderMismatchError(Exception): pass",
    "agent_brain_server/storage/__init__.py": "",
    "agent_brain_server/storage/protocol.py": """
from dataclasses import dataclass
class StorageError(Exception):
    def __init__(self, message, backend=None):
        super().__init__(message)
        self.message, self.backend = message, backend
@dataclass
class SearchResult:
    text: str
    metadata: dict
    score: float
    chunk_id: str
    matched_terms: list | None = None
@dataclass
class EmbeddingMetadata:
    provider: str
    model: str
    dimensions: int
""",
    "agent_brain_server/storage/postgres/__init__.py": "class PostgresBackend: 'built in'",
    "agent_brain_server/storage/postgres/config.py": "class PostgresConfig: 'built in'",
    "agent_brain_server/storage/postgres/ssl.py": "",
}
WHOSE = "from agent_brain_server.storage.postgres import PostgresBackend as b; print(b.__module__)"
OURS = "agent_brain_postgres.core.shim"
BUILT_IN = "agent_brain_server.storage.postgres"


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """A package with the core's names and a built-in backend."""
    for name, text in CORE.items():
        path = tmp_path / "core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "core"


def run(
    code: str, *paths: Path, python: Path | str = sys.executable, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that sees `paths`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    return subprocess.run(
        [str(python), *options, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def printed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


class TestInstall:
    def test_the_core_gets_this_backend(self, core: Path) -> None:
        code = f"from agent_brain_postgres import core; core.install(); {WHOSE}"
        assert printed(run(code, core)) == OURS

    def test_it_is_idempotent_and_can_be_undone(self, core: Path) -> None:
        code = f"""
import sys
from agent_brain_postgres import core
core.install(); core.install()
assert sum(type(f).__name__ == core.FINDER for f in sys.meta_path) == 1
{WHOSE}
core.uninstall(); core.uninstall()
assert not core.is_installed()
{WHOSE}
core.install()
{WHOSE}
"""
        assert printed(run(code, core)).split() == [OURS, BUILT_IN, OURS]

    def test_it_replaces_a_built_in_module_that_was_imported_before(self, core: Path) -> None:
        code = f"{WHOSE}; from agent_brain_postgres import core; core.install(); {WHOSE}"
        assert printed(run(code, core)).split() == [BUILT_IN, OURS]

    def test_it_imports_only_the_standard_library_until_the_core_asks(self, core: Path) -> None:
        code = """
import sys
from agent_brain_postgres import core
core.install()
import agent_brain_server.storage
heavy = {"psycopg", "pydantic", "numpy", "pluggy", "importlib.metadata"} & set(sys.modules)
print(sorted(heavy))
"""
        assert printed(run(code, core)) == "[]"

    def test_submodules_hold_the_same_classes(self, core: Path) -> None:
        code = """
from agent_brain_postgres import core; core.install()
import agent_brain_server.storage.postgres as package
from agent_brain_server.storage.postgres.backend import PostgresBackend
from agent_brain_server.storage.postgres.config import PostgresConfig
from agent_brain_server.storage.postgres.connection import PostgresConnectionManager
from agent_brain_server.storage.postgres.schema import PostgresSchemaManager
assert package.PostgresBackend is PostgresBackend
assert package.PostgresConfig is PostgresConfig
try:
    import agent_brain_server.storage.postgres.ssl
except ModuleNotFoundError:
    print("the built-in package does not shine through")
"""
        assert printed(run(code, core)) == "the built-in package does not shine through"


class TestIdentity:
    def test_errors_and_results_are_the_cores_when_it_was_imported_first(self, core: Path) -> None:
        assert printed(run(IDENTITY.format(first="", install=INSTALL), core)) == "same"

    def test_and_when_this_package_was_imported_first(self, core: Path) -> None:
        first = "from agent_brain_postgres import StorageError, backend, types"
        assert printed(run(IDENTITY.format(first=first, install=INSTALL), core)) == "same"

    def test_an_early_importer_of_our_error_still_catches_it(self, core: Path) -> None:
        code = f"""
from agent_brain_postgres import StorageError as early
{INSTALL}
import agent_brain_server.storage.postgres
from agent_brain_server.storage.protocol import StorageError
from agent_brain_postgres.errors import InvalidInput
error = InvalidInput("row 1")
print(isinstance(error, early), isinstance(error, StorageError), error.message, error.backend)
"""
        assert printed(run(code, core)) == "True True row 1 postgres"


INSTALL = "from agent_brain_postgres import core; core.install()"
IDENTITY = """
{first}
{install}
import agent_brain_server.storage.postgres
from agent_brain_server.storage import protocol
from agent_brain_server.providers import exceptions
import agent_brain_postgres
from agent_brain_postgres import backend, embedding_metadata, errors, hybrid, vectors
assert agent_brain_postgres.StorageError is protocol.StorageError
assert issubclass(errors.SettingsError, protocol.StorageError)
assert agent_brain_postgres.SearchResult is protocol.SearchResult
assert vectors.SearchResult is protocol.SearchResult
assert issubclass(hybrid.HybridResult, protocol.SearchResult)
assert backend.EmbeddingMetadata is protocol.EmbeddingMetadata
assert agent_brain_postgres.ProviderMismatchError is exceptions.ProviderMismatchError
assert embedding_metadata.ProviderMismatchError is exceptions.ProviderMismatchError
print("same")
"""


class TestFallback:
    """Whatever is wrong with this package, the core comes up on its own backend."""

    def test_an_error_in_the_package_is_a_warning(self, core: Path) -> None:
        code = f"""
import sys
from agent_brain_postgres import core; core.install()
sys.modules["psycopg"] = None
{WHOSE}
from agent_brain_server.storage.postgres.config import PostgresConfig
print(PostgresConfig.__doc__)
"""
        done = run(code, core)
        assert done.stdout.splitlines() == [BUILT_IN, "built in"]
        assert "RuntimeWarning: agent-brain-postgres could not be loaded" in done.stderr
        assert "psycopg" in done.stderr

    def test_also_where_warnings_are_errors(self, core: Path) -> None:
        code = f"""
import sys
from agent_brain_postgres import core; core.install()
sys.modules["psycopg"] = None
{WHOSE}
"""
        done = run(code, core, options=("-W", "error"))
        assert done.stdout.strip() == BUILT_IN, done.stderr
        assert "could not be loaded" in done.stderr

    def test_without_the_entry_point_the_core_keeps_its_own(self, core: Path) -> None:
        code = f"""
from agent_brain_postgres import core; core.install()
import importlib.metadata
importlib.metadata.entry_points = lambda **_: ()
{WHOSE}
"""
        assert printed(run(code, core)) == BUILT_IN


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of its own, whose site-packages hold the .pth file and nothing else."""
    directory = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    python = directory / "bin" / "python"
    found = run("import sysconfig; print(sysconfig.get_path('purelib'))", python=python)
    site_packages = Path(printed(found))
    (site_packages / pth.FILE_NAME).write_text(pth.content())
    return python


class TestPth:
    def test_it_gives_the_core_this_backend(self, core: Path, python: Path) -> None:
        assert printed(run(WHOSE, core, ROOT, SITE_PACKAGES, python=python)) == OURS

    def test_without_the_package_it_does_nothing_silently(self, core: Path, python: Path) -> None:
        assert printed(run(WHOSE, core, python=python)) == BUILT_IN

    def test_with_it_install_adds_no_second_finder(self, core: Path, python: Path) -> None:
        code = """
import sys
from agent_brain_postgres import core
core.install()
print(sum(type(f).__name__ == core.FINDER for f in sys.meta_path))
"""
        assert printed(run(code, core, ROOT, SITE_PACKAGES, python=python)) == "1"

    def test_it_imports_nothing_at_start(self, python: Path) -> None:
        code = "import sys; print(sorted(m for m in sys.modules if 'agent_brain' in m))"
        assert printed(run(code, ROOT, SITE_PACKAGES, python=python)) == "[]"

    def test_it_is_short(self) -> None:
        source = (ROOT / "agent_brain_postgres/core/bootstrap.py").read_text()
        assert len([line for line in source.splitlines() if line.strip()]) < 20
        assert len(pth.content().splitlines()) < 20

    def test_it_costs_less_than_two_milliseconds(self) -> None:
        line = pth.content().splitlines()[-1]
        before = list(sys.meta_path)
        times = []
        try:
            for _ in range(50):
                sys.meta_path[:] = before
                start = time.perf_counter()
                exec(line, {})
                times.append(time.perf_counter() - start)
        finally:
            sys.meta_path[:] = before
        assert statistics.median(times) < 0.002


class TestFile:
    @pytest.fixture(autouse=True)
    def _site_packages(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.directory = tmp_path / "site-packages"
        monkeypatch.setattr(pth, "_directories", lambda: [self.directory])

    def test_write_and_remove(self) -> None:
        path = pth.write()
        assert pth.existing() == [path]
        assert pth.is_current(path)
        assert pth.remove() == [path]
        assert list(self.directory.iterdir()) == []

    def test_a_file_of_another_version_is_told_apart_and_replaced(self) -> None:
        path = pth.write()
        path.write_text("import sys\n")
        assert not pth.is_current(path)
        pth.write()
        assert pth.is_current(path)

    def test_where_the_first_directory_is_closed_the_next_is_used(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        closed = tmp_path / "closed"
        closed.write_text("a file, so nothing can be created below it")
        monkeypatch.setattr(pth, "_directories", lambda: [closed / "x", self.directory])
        assert pth.write().parent == self.directory
