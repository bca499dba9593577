"""The command line: help, exit codes, errors; each command has tests of its own elsewhere."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from agent_brain_postgres import cli
from agent_brain_postgres.errors import SettingsError

HEAVY = {"psycopg", "pydantic", "numpy", "rich", "yaml", "fastapi", "wordllama"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Add a command `fail` that raises the error given as the fixture's parameter."""

    @click.command()
    def command() -> None:
        raise request.param

    module = ModuleType("a_failing_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_failing_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fail", "a_failing_command:command")


def test_the_version_is_that_of_the_distribution() -> None:
    done = python("-m", "agent_brain_postgres", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"agent-brain-postgres {version('agent-brain-postgres')}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command_with_what_it_is_for(flag: str) -> None:
    done = CliRunner().invoke(cli.main, [flag])
    assert done.exit_code == 0, done.output
    listed = {line.split()[0]: line.split()[1:] for line in _command_lines(done.output)}
    assert list(listed) == list(cli.COMMANDS)
    assert all(listed.values())


def _command_lines(text: str) -> list[str]:
    lines = text.split("Commands:\n")[1].splitlines()
    return [line for line in lines if line.startswith("  ") and not line.startswith("   ")]


# `serve` hands its arguments to the core's server, `--help` too.
@pytest.mark.parametrize("name", sorted(cli.COMMANDS.keys() - {"serve"}))
def test_every_command_has_a_help_page(name: str) -> None:
    done = CliRunner().invoke(cli.main, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: main {name}")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    command = cli.main.get_command(click.Context(cli.main), name)
    assert command is not None
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["--no-such-option"], ["demo"], ["demo", "/no/such/path"]],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_with_a_hint(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 2
    assert "Error: " in done.output
    assert "--help" in done.output


@pytest.mark.parametrize("failing", [SettingsError("port is 70000, which is wrong")], indirect=True)
@pytest.mark.usefixtures("failing")
def test_an_error_of_the_storage_is_one_line_and_exit_code_1() -> None:
    done = CliRunner().invoke(cli.main, ["fail"])
    assert done.exit_code == 1
    assert done.stderr == "Error: port is 70000, which is wrong\n"
    assert done.stdout == ""


@pytest.mark.parametrize("failing", [KeyboardInterrupt(), click.Abort()], indirect=True)
@pytest.mark.usefixtures("failing")
def test_an_interruption_is_exit_code_130() -> None:
    done = CliRunner().invoke(cli.main, ["fail"])
    assert done.exit_code == 130
    assert done.stderr == "Interrupted.\n"


@pytest.mark.parametrize("failing", [RuntimeError("a defect")], indirect=True)
@pytest.mark.usefixtures("failing")
def test_a_defect_keeps_its_traceback() -> None:
    done = CliRunner().invoke(cli.main, ["fail"])
    assert isinstance(done.exception, RuntimeError)


def test_the_group_imports_nothing_heavy() -> None:
    done = python("-c", "import agent_brain_postgres.cli, sys; print(*sys.modules)")
    assert set(done.stdout.split()) & HEAVY == set(), done.stderr


def test_help_of_all_commands_imports_no_model_and_no_web_framework() -> None:
    script = (
        "import sys; from agent_brain_postgres.cli import main\n"
        "main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & {"numpy", "wordllama", "fastapi", "rich"} == set()
