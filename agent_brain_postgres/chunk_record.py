"""One chunk looked up by its id, in the shape of the core's `ChunkRecord`."""

from __future__ import annotations

import os.path
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ChunkRecord:
    """A chunk without its embedding; `source` is the absolute path it was cut from."""

    chunk_id: str
    parent_doc_id: str
    source: str
    content: str
    summary: str | None
    folder_id: str
    token_count: int
    language: str | None


def create(chunk_id: str, text: str, metadata: dict[str, Any]) -> ChunkRecord:
    """Build the record; inside the running core it is the core's own class.

    Parent and folder fall back to the source path and its directory.
    """
    source = str(metadata.get("source") or "")
    return _record_class()(
        chunk_id=chunk_id,
        parent_doc_id=str(metadata.get("parent_doc_id") or source),
        source=source,
        content=text,
        summary=_optional(metadata.get("summary") or metadata.get("section_summary")),
        folder_id=str(metadata.get("folder_id") or os.path.dirname(source)),  # noqa: PTH120
        token_count=_count(metadata.get("token_count")),
        language=_optional(metadata.get("language")),
    )


def _record_class() -> type[ChunkRecord]:
    core: Any = sys.modules.get("agent_brain_server.models.query")
    return ChunkRecord if core is None else core.ChunkRecord


def _optional(value: Any) -> str | None:
    return str(value) if value else None


def _count(value: Any) -> int:
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):
        return 0
