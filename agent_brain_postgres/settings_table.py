"""The settings as a Markdown table, from the model; keeps the README's copy true.

``python -m agent_brain_postgres.settings_table README.md`` rewrites the part between the markers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent_brain_postgres.config import PostgresConfig
from agent_brain_postgres.settings_errors import declared

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"


def settings_table() -> str:
    """Return one row a setting: name, default, meaning, what is allowed."""
    rows = ["| setting | default | meaning | allowed |", "| --- | --- | --- | --- |"]
    for name, field in PostgresConfig.model_fields.items():
        cells = (f"`{name}`", _default(field), field.description or "", declared(field, "allowed"))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return declared(field, "shown")
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def updated(document: str) -> str:
    """Return `document` with the table between its markers replaced."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Print the table, or rewrite it in the named documents."""
    for name in arguments:
        path = Path(name)
        path.write_text(updated(path.read_text("utf-8")), "utf-8")
    if not arguments:
        print(settings_table())


if __name__ == "__main__":
    main(sys.argv[1:])
