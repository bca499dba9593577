"""The README's settings table is the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.settings_table import BEGIN, END, main, settings_table, updated

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_shows_the_settings_as_they_are() -> None:
    document = README.read_text("utf-8")
    assert updated(document) == document, (
        "run: python -m agent_brain_postgres.settings_table README.md"
    )


def test_every_setting_has_a_row_of_four_cells() -> None:
    rows = settings_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(PostgresConfig.model_fields)
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_the_command_rewrites_a_document_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    main([str(document)])
    assert document.read_text() == f"before\n{BEGIN}\n{settings_table()}\n{END}\nafter\n"


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == settings_table() + "\n"


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="settings:begin"):
        updated("nothing here")
