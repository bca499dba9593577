"""The documentation says what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_brain_postgres import PostgresConfig
from agent_brain_postgres.cli import COMMANDS

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_command(command: str) -> None:
    table = README.read_text("utf-8").partition("## Commands")[2].partition("## Settings")[0]
    assert f"`{command}`" in table


def test_the_readme_names_no_command_that_is_not_there() -> None:
    named = re.findall(r"agent-brain-postgres ([a-z]+)", README.read_text("utf-8"))
    assert set(named) <= COMMANDS.keys()


def test_the_layout_in_the_readme_is_the_layout() -> None:
    text = README.read_text("utf-8").partition("## Layout")[2]
    named = set(re.findall(r"\b([a-z_]+(?:\.py|/))", text)) - {"templates/", "benchmarks/"}
    package = README.parent / "agent_brain_postgres"
    missing = {name for name in named if not (package / name.rstrip("/")).exists()}
    assert missing <= {"agent_brain_postgres/"}


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README.read_text("utf-8"))
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in PostgresConfig.model_fields.values())
