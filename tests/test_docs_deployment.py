"""docs/deployment.md names what the code has: functions, checks, metrics, variables."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from agent_brain_postgres import deploy
from agent_brain_postgres.doctor import CHECKS
from agent_brain_postgres.health.document import document
from agent_brain_postgres.health.metrics import HealthCollector

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "deployment.md").read_text("utf-8")


def test_every_check_of_doctor_is_named_in_order() -> None:
    listed = TEXT.partition("## Doctor")[2].partition("\n    settings")[2].partition("\n\n")[0]
    assert " ".join(("settings" + listed).split()) == " ".join(check.name for check in CHECKS)


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\$\{(\w+)", deploy.template_text()))))
def test_every_variable_of_the_template_is_named(variable: str) -> None:
    assert f"`{variable}`" in TEXT


@pytest.mark.parametrize(
    "function", [name for name in deploy.__all__ if inspect.isfunction(getattr(deploy, name))]
)
def test_every_function_for_a_wizard_is_named(function: str) -> None:
    assert re.search(rf"`{function}\b", TEXT)


async def test_every_metric_is_named(backend: object) -> None:
    families = HealthCollector(await document(backend), {}).collect()  # type: ignore[arg-type]
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        short = name.replace("agent_brain_postgres_pool_", "..._", 1)
        assert name in TEXT or short in TEXT or name.replace("agent_brain_postgres", "...") in TEXT


def test_the_commands_that_are_shown_exist() -> None:
    from agent_brain_postgres.cli import COMMANDS

    shown = set(re.findall(r"agent-brain-postgres ([a-z]+)", TEXT))
    assert shown <= set(COMMANDS)
