"""`enable`, `disable`, `status`, `serve`: what they say and do where there is no core."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent_brain_postgres.cli import main
from agent_brain_postgres.core import finder, pth


@pytest.fixture(autouse=True)
def site_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty site-packages, and a working directory without settings."""
    directory = tmp_path / "site-packages"
    monkeypatch.setattr(pth, "_directories", lambda: [directory])
    monkeypatch.chdir(tmp_path)
    return directory


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


class TestEnable:
    def test_it_says_what_it_wrote_what_that_does_and_how_to_undo_it(
        self, site_packages: Path
    ) -> None:
        done = run("enable")
        assert done.exit_code == 0
        assert f"Wrote: {site_packages / pth.FILE_NAME}" in done.output
        assert "storage.backend: postgres" in done.output
        assert "agent-brain-postgres disable" in done.output

    def test_it_notes_a_missing_core(self) -> None:
        assert "agent-brain-rag is not installed in this environment" in run("enable").output

    def test_twice_is_as_once(self, site_packages: Path) -> None:
        run("enable")
        assert "Already there:" in run("enable").output
        assert [path.name for path in site_packages.iterdir()] == [pth.FILE_NAME]

    def test_where_it_may_not_write_it_names_the_other_way(
        self, site_packages: Path
    ) -> None:
        site_packages.write_text("a file in the way")
        done = run("enable")
        assert done.exit_code == 1
        assert str(site_packages) in done.output
        assert "agent-brain-postgres serve" in done.output


class TestDisable:
    def test_it_removes_the_file_and_says_so(self, site_packages: Path) -> None:
        run("enable")
        done = run("disable")
        assert done.exit_code == 0
        assert f"Removed: {site_packages / pth.FILE_NAME}" in done.output
        assert list(site_packages.iterdir()) == []

    def test_without_a_file_there_is_nothing_to_do(self) -> None:
        done = run("disable")
        assert done.exit_code == 0
        assert "Nothing to do" in done.output


class TestStatus:
    @pytest.fixture
    def core(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Something that looks like an installed core."""
        (tmp_path / "path" / "agent_brain_server").mkdir(parents=True)
        (tmp_path / "path" / "agent_brain_server" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path / "path")

    def verdict(self) -> str:
        done = run("status")
        assert done.exit_code == 0
        return done.output.rpartition("Verdict:")[2].strip()

    def configure(self, backend: str) -> None:
        Path("config.yaml").write_text(f"storage:\n  backend: {backend}\n")

    def test_without_a_core(self) -> None:
        assert "agent-brain-rag is not installed here" in self.verdict()

    def test_with_another_backend(self, core: None) -> None:
        self.configure("chroma")
        assert self.verdict().startswith("the server uses chroma (")
        assert "config.yaml" in self.verdict()

    def test_without_a_configuration(self, core: None) -> None:
        assert "no configuration file" in self.verdict()

    def test_the_environment_decides_before_the_file(
        self, core: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.configure("chroma")
        monkeypatch.setenv("AGENT_BRAIN_STORAGE_BACKEND", "Postgres")
        assert "built-in PostgreSQL backend" in self.verdict()

    def test_not_enabled(self, core: None) -> None:
        self.configure("postgres")
        assert "`agent-brain-postgres enable` changes that" in self.verdict()

    def test_enabled(self, core: None, site_packages: Path) -> None:
        self.configure("postgres")
        run("enable")
        assert self.verdict() == "the server uses agent-brain-postgres, however it is started"
        assert f"yes, by {site_packages / pth.FILE_NAME}" in run("status").output

    def test_a_file_of_another_version_is_named(self, core: None, site_packages: Path) -> None:
        run("enable")
        (site_packages / pth.FILE_NAME).write_text("import sys\n")
        assert "another version's: run `enable`" in run("status").output

    def test_a_missing_entry_point_is_named(
        self, core: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.configure("postgres")
        monkeypatch.setattr(finder, "entry_point", lambda: None)
        assert "entry point is missing" in self.verdict()


class TestServe:
    def test_without_a_core_it_says_what_to_install(self) -> None:
        done = run("serve", "--port", "0")
        assert done.exit_code == 1
        assert "pip install agent-brain-rag" in done.output
