"""What PostgreSQL's `text` and `jsonb` cannot hold, replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_REFUSED = re.compile("[\x00\ud800-\udfff]")
# The same in JSON text written without ASCII escapes: control characters are escaped there.
REFUSED_IN_JSON = re.compile(r"\\u0000|[\ud800-\udfff]")


def sanitize_text(text: str) -> str:
    """Drop NUL characters and replace lone surrogates with U+FFFD: UTF-8 text has neither."""
    if _REFUSED.search(text) is None:
        return text
    return _SURROGATE.sub("\ufffd", text.replace("\x00", ""))


def sanitize_json(value: Any) -> Any:
    """Apply `sanitize_text` to every key and string of a JSON-like value; keep all else."""
    if isinstance(value, str):
        return sanitize_text(value)
    if isinstance(value, Mapping):
        return {sanitize_text(str(key)): sanitize_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(item) for item in value]
    return value
