"""The keyword ranking: one chain of common table expressions, for a search by words and for hybrid.

BM25 over candidates that two bounds keep few, whatever the words. The words that are rare enough
each contribute all their chunks; of the frequent ones, the combinations that weigh most are
taken as long as their estimated number allows. The term frequency, which PostgreSQL has no
function for, comes out of `ts_rank`: with equal weights it is the sum of 1/j² for j up to the
frequency, over pi²/6. See docs/search.md for the formula and what it was measured against.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from psycopg import sql

from agent_brain_postgres import ranking_sql as statements
from agent_brain_postgres.filters import Filter
from agent_brain_postgres.query import Query
from agent_brain_postgres.store import Store

if TYPE_CHECKING:
    from typing_extensions import LiteralString

RARE = 1_000
"""Chunks that the rare words may contribute together."""

BUDGET = 1_500
"""Estimated chunks that are ranked; a filter multiplies it, since it discards some of them."""

FILTERED = 2

LIMIT = 5_000
"""Chunks that are ranked at most, where the estimate was wrong."""

SHORT_LIST = 100
"""Chunks whose fields, word order and spelling are looked at."""

TERMS = (4, 8, 16, 32)
"""Lexemes that are looked for at most, the weightiest; one statement for each number."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the statement of a query depends on but its values."""

    top_k: int
    enough: int
    terms: int
    condition: str
    filtered: bool
    phrases: bool
    names: bool
    explain: bool


def shape(
    query: Query, top_k: int, condition: Filter, *, explain: bool, enough: int | None = None
) -> Shape:
    """Describe the statement that a query needs.

    Should the best combinations of words find fewer than `enough` (`top_k`) chunks, any chunk with
    one of the words will do.
    """
    return Shape(
        top_k=top_k,
        enough=_enough(top_k if enough is None else enough, condition),
        terms=next((n for n in TERMS if n >= len(query.words) + 2), TERMS[-1]),
        condition=condition.sql.as_string(None),
        filtered=not condition.empty,
        phrases=bool(query.required or query.excluded),
        names=bool(query.names),
        explain=explain,
    )


def _enough(wanted: int, condition: Filter) -> int:
    """Give the candidates that make do: few ones that pass a filter might not be its best."""
    return wanted if condition.empty else max(wanted, SHORT_LIST)


def parameters(store: Store, query: Query) -> dict[str, Any]:
    """Give the values of a query; those of the filter are apart."""
    params: dict[str, Any] = {
        "kw_language": store.language,
        "kw_words": [word for word, _ in query.words],
        "kw_literals": [literal for _, literal in query.words],
        "kw_weights": list(query.words.values()),
        "kw_compound": 0.5,
        "kw_sequence": [word for word, _, _, _ in query.sequence[:64]],
    }
    if query.names:
        params["kw_names"] = list(query.names)
    if query.required or query.excluded:
        params |= _phrase_parameters(query)
    return params


def _phrase_parameters(query: Query) -> dict[str, Any]:
    phrases = [(phrase, False) for phrase in query.required]
    phrases += [(phrase, True) for phrase in query.excluded]
    words = [
        (number, negative, position, word, literal)
        for number, (phrase, negative) in enumerate(phrases)
        for word, position, literal, _ in phrase
    ]
    names = "kw_phrases", "kw_negative", "kw_positions", "kw_phrase_words", "kw_phrase_literals"
    return dict(zip(names, map(list, zip(*words, strict=True)), strict=True))


@lru_cache(maxsize=256)
def ranked(store: Store, shape: Shape) -> sql.Composed:
    """Compose the expressions up to `ranked (chunk_id, score)`, best first, at most `top_k`."""
    many = FILTERED if shape.filtered else 1
    short_list = max(SHORT_LIST, shape.top_k)
    tables: dict[str, sql.Composable] = {
        "chunks": store.chunks,
        "lexeme_statistics": store.lexeme_statistics,
        "quoted": sql.SQL(statements.QUOTED),
        "max_terms": sql.Literal(shape.terms),
        "rare": sql.Literal(RARE * many),
        "budget": sql.Literal(BUDGET * many),
        "short_list": sql.Literal(short_list),
        "top_k": sql.Literal(shape.top_k),
        "limit": sql.Literal(max(LIMIT * many, short_list)),
        "condition": sql.SQL(shape.condition),
        "frequency": _frequency("rank"),
        "heading_frequency": _frequency("2.0 * field"),
        "title_frequency": _frequency("field"),
        "matched": sql.SQL(statements.MATCHED if shape.explain else ""),
    }
    tables["spelling"] = sql.SQL(statements.SPELLING if shape.names else "").format(**tables)
    for name, text, separator in (
        ("arguments", statements.ARGUMENT, ","),
        ("measures", statements.MEASURE, ","),
        ("total", statements.TERM, " +"),
    ):
        terms = [sql.SQL(text).format(n=sql.SQL(str(n))) for n in range(1, shape.terms + 1)]
        tables[name] = sql.SQL(separator).join(terms)
    scored = sql.SQL(statements.SCORED)
    tables["candidates"] = scored.format(gate=sql.SQL(""), plan=sql.SQL("plan"), **tables)
    enough = sql.SQL("(SELECT count(*) FROM candidates) < {} AND ").format(shape.enough)
    tables["completed"] = scored.format(gate=enough, plan=sql.SQL("fallback"), **tables)
    return sql.SQL(statements.WORDS + _plan(shape.phrases) + statements.RANKED).format(**tables)


def _plan(phrases: bool) -> LiteralString:
    if not phrases:
        return statements.PLAN
    words = statements.PLAN.replace("\nplan AS", "\nwords AS").replace("\nfallback AS", "\nevery AS")
    return words + statements.PHRASES


def _frequency(rank: LiteralString) -> sql.Composed:
    return sql.SQL(statements.FREQUENCY).format(rank=sql.SQL(rank))
