"""What PostgreSQL's `text` and `jsonb` cannot hold, replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def sanitize_text(text: str) -> str:
    """Drop NUL characters and replace lone surrogates with U+FFFD: UTF-8 text has neither."""
    text = text.replace("\x00", "")
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def is_refused_in_json(encoded: str) -> bool:
    """Tell whether `jsonb` refuses JSON text that was written without ASCII escapes."""
    if "\\u0000" in encoded:  # control characters are escaped even so
        return True
    return not encoded.isascii() and _SURROGATE.search(encoded) is not None


def sanitize_json(value: Any) -> Any:
    """Apply `sanitize_text` to every key and string of a JSON-like value; keep all else."""
    if isinstance(value, str):
        return sanitize_text(value)
    if isinstance(value, Mapping):
        return {sanitize_text(str(key)): sanitize_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(item) for item in value]
    return value
