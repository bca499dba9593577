"""Search by words: any of them, the best match first, in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from psycopg import sql

from agent_brain_postgres import ranking
from agent_brain_postgres.filters import Filter
from agent_brain_postgres.lexeme_table import lexemes_of
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.query import parse
from agent_brain_postgres.store import Store
from agent_brain_postgres.types import SearchResult
from agent_brain_postgres.words import names

if TYPE_CHECKING:
    from typing_extensions import LiteralString

SEARCH: LiteralString = """
WITH {ranked}
SELECT chunk_id, document, metadata, coalesce(score / nullif(max(score) OVER (), 0), 0.0){matched}
FROM ranked JOIN {chunks} AS chunk USING (chunk_id)
ORDER BY score DESC, chunk_id COLLATE "C"
"""


async def search(
    connection: Connection,
    store: Store,
    query: str,
    top_k: int,
    condition: Filter,
    explain: bool = False,
) -> list[SearchResult]:
    """Find the `top_k` chunks that match the words of a query best: scores 0-1, the best is 1.

    With `explain` a second, small statement finds the matched words as they stand in the texts.
    """
    parsed = parse(query)
    if parsed.empty or top_k <= 0:
        return []
    shape = ranking.shape(parsed, top_k, condition, explain=explain)
    params = ranking.parameters(store, parsed) | condition.params
    cursor = await connection.execute(_statement(store, shape), params, binary=True)
    rows = await cursor.fetchall()
    results = [
        SearchResult(text=row[1], metadata=row[2], score=row[3], chunk_id=row[0]) for row in rows
    ]
    if explain:
        await explain_matches(connection, store, results, [row[4] for row in rows])
    return results


@lru_cache(maxsize=256)
def _statement(store: Store, shape: ranking.Shape) -> bytes:
    statement = sql.SQL(SEARCH).format(
        ranked=ranking.ranked(store, shape),
        chunks=store.chunks,
        matched=sql.SQL(", matched" if shape.explain else ""),
    )
    return statement.as_bytes(None)


async def explain_matches(
    connection: Connection,
    store: Store,
    results: Sequence[SearchResult],
    matched: Iterable[list[str] | None],
) -> None:
    """Fill in `matched_terms`: the words and names of each text that have a matched lexeme."""
    found = [list(names(f"{_titles(result)}\n{result.text}")) for result in results]
    words = {
        word
        for text in found
        for _, parts in text
        for word, _, literal, _ in parts
        if not literal
    }
    known = await lexemes_of(connection, store.language, words)
    for result, lexemes, text in zip(results, matched, found, strict=True):
        wanted = frozenset(lexemes or ())
        result.matched_terms = list(
            dict.fromkeys(
                name
                for name, parts in text
                if any(
                    not wanted.isdisjoint((word,) if literal else known[word])
                    for word, _, literal, _ in parts
                )
            )
        )


def _titles(result: SearchResult) -> str:
    values = (result.metadata.get(key) for key in ("symbol_name", "file_name", "title"))
    return "\n".join(value for value in values if isinstance(value, str))
