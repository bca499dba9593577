"""The environment file `.env.agent-brain`: read by this package and by compose, edited in place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from agent_brain_postgres.deploy import files
from agent_brain_postgres.errors import DeployError

NAME = ".env.agent-brain"

HEADER = "# Written by `agent-brain-postgres init`. It holds secrets: do not commit it."

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~-]*")


def values(path: Path) -> dict[str, str]:
    """Read the variables of an environment file; empty when there is no file."""
    file = files.read(path)
    if file is None:
        return {}
    return {b.key: b.value or "" for b in _bindings(file.text) if b.key and not b.error}


def merged(text: str, changes: Mapping[str, str | None]) -> str:
    """Set variables (None removes one) and leave everything else as it is.

    A variable that already has its value keeps its line; one that is set several times is set
    once afterwards, in the last place, which is the one that counts.
    """
    bindings = _bindings(text)
    last = {b.key: i for i, b in enumerate(bindings) if b.key}
    lines = [
        _line(binding, changes[binding.key], i == last[binding.key])
        if binding.key is not None and binding.key in changes
        else binding.original.string
        for i, binding in enumerate(bindings)
    ]
    result = "".join(lines)
    added = [f"{k}={quoted(v)}\n" for k, v in changes.items() if v is not None and k not in last]
    if added and result and not result.endswith("\n"):
        result += "\n"
    return ("" if result or not added else HEADER + "\n") + result + "".join(added)


def _line(binding: Binding, value: str | None, is_last: bool) -> str:
    original = binding.original.string
    # A binding carries the blank lines before it.
    blank = original[: len(original) - len(original.lstrip("\n"))]
    if value is None or not is_last:
        return blank
    if binding.value == value:
        return original
    return f"{blank}{binding.key}={quoted(value)}\n"


def quoted(value: str) -> str:
    """Write a value so that compose and python-dotenv read the same text back."""
    if "\n" in value or "\0" in value:
        raise DeployError("a value in an environment file cannot hold a line break or NUL")
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _bindings(text: str) -> list[Binding]:
    return list(parse_stream(StringIO(text)))
