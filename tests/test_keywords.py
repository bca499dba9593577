"""Search by words: what is found, in which order, and that no query can break it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from agent_brain_postgres import PostgresBackend, SearchResult, filters, ranking
from agent_brain_postgres.query import parse
from agent_brain_postgres.store import Store
from tests import bm25_model
from tests.conftest import DIMENSIONS, MakeBackend
from tests.searching import FILLER, found, store

IDENTIFIERS = [
    ("getUserName", "user"),
    ("GetUserName", "name"),
    ("get_user_name", "user"),
    ("GET_USER_NAME", "users"),
    ("get-user-name", "get name"),
    ("os.path.join", "path"),
    ("agent_brain.storage.postgres", "storage"),
    ("src/app/main.py", "main.py"),
    ("src/app/main.py", "app"),
    ("HTTPServer2Config", "server config"),
    ("libfoo-1.2.3", "libfoo"),
    ("std::vector", "vector"),
    ("パッケージ管理", "管理"),
    ("数据库连接池", "连接"),
]


@pytest.mark.parametrize(("identifier", "query"), IDENTIFIERS)
async def test_a_part_finds_an_identifier(
    backend: PostgresBackend, identifier: str, query: str
) -> None:
    await store(backend, {**FILLER, "wanted": f"x = {identifier}(y)"})
    assert await found(backend, query) == ["wanted"]


@pytest.mark.parametrize(
    "identifier", ["getUserName", "get_user_name", "user.name.get", "user/name/get.py", "get-user"]
)
async def test_the_whole_identifier_comes_first(backend: PostgresBackend, identifier: str) -> None:
    parts = "get user name py " * 3
    await store(
        backend,
        {**FILLER, "parts": parts, "some": "name of user", "wanted": f"a long {identifier} text "
         + "with many other words, so that its length speaks against it " * 3},
    )  # fmt: skip
    assert (await found(backend, identifier))[0] == "wanted"


async def test_the_spelling_that_was_typed_comes_before_others(backend: PostgresBackend) -> None:
    spellings = ["getUserName", "get_user_name", "GET_USER_NAME", "GetUserName"]
    await store(backend, {name: f"call {name} now" for name in spellings})
    for name in spellings:
        assert (await found(backend, name))[0] == name
        assert len(await found(backend, name)) == len(spellings)


async def test_a_joined_word_finds_the_name_that_separates_it(backend: PostgresBackend) -> None:
    await store(backend, {**FILLER, "wanted": "let userName = 1"})
    assert await found(backend, "username") == ["wanted"]


async def test_a_question_finds_chunks_with_any_of_its_words_best_first(
    backend: PostgresBackend,
) -> None:
    await store(
        backend,
        {**FILLER, "all": "parse the json files", "two": "a json file", "one": "files and folders"},
    )
    assert await found(backend, "how do I parse a JSON file?") == ["all", "two", "one"]


async def test_words_in_title_come_before_headings_before_text(backend: PostgresBackend) -> None:
    documents = dict.fromkeys(("text", "heading", "title"), "quick brown fox")
    documents["text"] += " zebra"
    metadatas = {"heading": {"section_title": "zebra"}, "title": {"symbol_name": "zebra"}}
    await store(backend, FILLER | documents, metadatas)
    assert await found(backend, "zebra") == ["title", "heading", "text"]


async def test_the_name_that_code_defines_comes_before_its_uses(backend: PostgresBackend) -> None:
    await store(
        backend,
        {**FILLER, "use": "return frobnicate(x) # a b", "definition": "def frobnicate(x): a b"},
    )
    assert await found(backend, "frobnicate") == ["definition", "use"]


async def test_words_next_to_each_other_come_first(backend: PostgresBackend) -> None:
    await store(
        backend,
        {**FILLER, "apart": "boundary of the thin and cold layer", "adjacent": "cold and thin: the boundary layer of"},
    )  # fmt: skip
    assert await found(backend, "boundary layer") == ["adjacent", "apart"]


async def test_a_phrase_must_be_there_in_its_order(backend: PostgresBackend) -> None:
    await store(
        backend,
        {**FILLER, "yes": "the token bucket of", "no": "a bucket of tokens", "gap": "token big bucket"},
    )
    assert await found(backend, '"token bucket"') == ["yes"]
    assert await found(backend, '"a bucket of tokens" filler') == ["no"]
    assert await found(backend, '"bucket token"') == []


async def test_a_phrase_may_hold_names_and_numbers(backend: PostgresBackend) -> None:
    await store(backend, {**FILLER, "yes": "set max_size 10 now", "no": "10 size max"})
    assert await found(backend, '"max_size 10"') == ["yes"]


async def test_excluded_words_and_phrases_are_not_there(backend: PostgresBackend) -> None:
    await store(
        backend,
        {**FILLER, "one": "alpha beta", "two": "alpha gamma delta", "three": "alpha delta gamma"},
    )
    assert await found(backend, "alpha -beta") == ["three", "two"]
    assert await found(backend, 'alpha -"gamma delta" -beta') == ["three"]
    assert await found(backend, "-alpha") == []


async def test_or_is_no_word(backend: PostgresBackend) -> None:
    await store(backend, {**FILLER, "one": "alpha", "two": "beta"})
    assert sorted(await found(backend, "alpha OR beta")) == ["one", "two"]


@pytest.mark.parametrize(
    "query",
    ["", " ", "\0", "\ud800", "-", '"', '""', '-""', "the of and", '"to be"', "OR", "-OR", "((", "'",
     "\\", ":*", "& | !", "<->", "%s %(x)s {}", "a" * 1_000_000, "word " * 200_000, "🙂"],
)  # fmt: skip
async def test_any_string_is_a_query(backend: PostgresBackend, query: str) -> None:
    await store(backend, {**FILLER, "odd": "word a%s {} ' \\ 🙂"})
    results = await backend.keyword_search(query, 5, explain=True)
    assert all(0 <= result.score <= 1 for result in results)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    queries=st.lists(
        st.text(max_size=30)
        | st.lists(
            st.sampled_from(['"', "-", "OR", "word", '"a word"', "-x", "'", "\\", "a.b", "日本"])
        ).map(" ".join),
        max_size=8,
    )
)
def test_no_query_raises(queries: list[str], shared_backend_config: Any) -> None:
    async def run() -> None:
        backend = PostgresBackend(shared_backend_config, embedding_dimensions=DIMENSIONS)
        await backend.initialize()
        try:
            await store(backend, {"one": "a word x", "two": "日本 a.b"})
            for query in queries:
                assert len(await backend.keyword_search(query, 3, explain=True)) <= 2
        finally:
            await backend.close()

    asyncio.run(run())


@pytest.fixture
def shared_backend_config(config: Any) -> Any:
    return config


async def test_a_question_of_a_thousand_characters_is_answered(backend: PostgresBackend) -> None:
    question = " ".join(f"unknown{i} word{i}" for i in range(60)) + " needle in a haystack?"
    assert len(question) > 1000
    await store(backend, {**FILLER, "wanted": "the needle of the haystack"})
    assert (await found(backend, question))[0] == "wanted"


async def test_scores_go_down_from_one(backend: PostgresBackend) -> None:
    await store(backend, {**FILLER, "a": "cat cat dog", "b": "cat and bird", "c": "dog"})
    scores = [result.score for result in await backend.keyword_search("cat dog", 10)]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_is_that_of_bm25(backend: PostgresBackend, seed: int) -> None:
    """Nonsense words, which neither have stems nor stand next to each other as in the query."""
    chance = random.Random(seed)
    vocabulary = [f"{a}{b}{a}{b}k" for a in "bdgkp" for b in "aiou"]
    weights = [1 / (i + 1) for i in range(len(vocabulary))]
    documents = {
        f"d{i:03}": " ; x y z ".join(chance.choices(vocabulary, weights, k=chance.randint(2, 30)))
        for i in range(200)
    }
    await store(backend, documents)
    for _ in range(10):
        query = chance.choices(vocabulary, weights, k=4)
        lexemes = {name: text.replace(";", "").split() for name, text in documents.items()}
        expected = bm25_model.scores(lexemes, query)
        results = await backend.keyword_search(" . ".join(query), 20)
        best = max(expected.values())
        assert [r.score for r in results] == pytest.approx(
            [expected[r.chunk_id] / best for r in results], rel=1e-5
        )
        ideal = sorted(expected.values(), reverse=True)[: len(results)]
        assert [expected[r.chunk_id] for r in results] == pytest.approx(ideal, rel=1e-5)


async def test_frequent_words_alone_still_find_the_best(backend: PostgresBackend) -> None:
    """Each word is in most chunks, so that the candidates are combinations of them."""
    chance = random.Random(7)
    common = [f"{c}omk" for c in "bcdfg"]
    documents = {
        f"d{i:04}": " ; ".join(chance.sample(common, 3) + [f"pad{i % 50}"] * 9) for i in range(4000)
    }
    documents["best"] = " ; ".join(common * 3)
    await store(backend, documents)
    results = await found(backend, " . ".join(common))
    assert results[0] == "best"
    assert len(results) == 10


async def test_top_k_rows_come_whenever_so_many_match(backend: PostgresBackend) -> None:
    documents = {f"d{i:04}": f"common {'rare' if i < 3 else ''} text {i}" for i in range(1500)}
    await store(backend, documents, {f"d{i:04}": {"even": i % 2 == 0} for i in range(1500)})
    assert len(await found(backend, "rare common", 50)) == 50
    assert len(await found(backend, "rare common", 700, where={"even": True})) == 700
    assert len(await found(backend, "rare", 50)) == 3


async def test_a_filter_that_keeps_few_still_finds_them(backend: PostgresBackend) -> None:
    documents = {f"d{i:04}": "common words in every text" for i in range(3000)}
    await store(backend, documents, {"d2999": {"language": "go"}, "d1000": {"language": "go"}})
    assert sorted(await found(backend, "common text", languages=["go"])) == ["d1000", "d2999"]


async def test_matched_terms_stand_as_in_the_text(backend: PostgresBackend) -> None:
    text = "def getUserName(id): return Users.parsing[id]  # os.path.join"
    await store(backend, {**FILLER, "one": text})
    [result] = await backend.keyword_search("user parse os.path.join", 1, explain=True)
    assert result.matched_terms == [
        "getUserName", "Users", "parsing", "os", "path", "join", "os.path.join",
    ]  # fmt: skip
    [result] = await backend.keyword_search("user", 1)
    assert result.matched_terms is None


async def test_results_are_whole(backend: PostgresBackend) -> None:
    metadata = {"source": "/a/b.py", "nested": {"x": [1, None]}}
    await store(backend, {**FILLER, "one": "unique text"}, {"one": metadata})
    assert await backend.keyword_search("unique", 3) == [
        SearchResult(text="unique text", metadata=metadata, score=1.0, chunk_id="one")
    ]


async def test_the_language_of_the_settings_cuts_the_query_too(make_backend: MakeBackend) -> None:
    backend = await make_backend(language="german")
    await store(backend, {**FILLER, "one": "die großen Häuser", "two": "ein Baum"})
    assert await found(backend, "Haus") == ["one"]


async def test_a_search_is_one_statement(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(backend, FILLER)
    sent: list[Any] = []
    execute = psycopg.AsyncCursor.execute

    async def count(cursor: Any, statement: Any, *arguments: Any, **more: Any) -> Any:
        sent.append(statement)
        return await execute(cursor, statement, *arguments, **more)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", count)
    await backend.keyword_search('see "nothing to" -whatever', 5)
    assert len(sent) == 1
    await backend.hybrid_search("see nothing", [1.0] * DIMENSIONS, 5)
    assert len(sent) == 2


async def test_the_words_are_found_by_index(backend: PostgresBackend, dsn: str) -> None:
    await store(backend, {f"d{i:04}": f"common text word{i % 100} " * 20 for i in range(3000)})
    query = parse("common word7 text")
    nothing = filters.compile_where(None)
    shape = ranking.shape(query, 10, nothing, explain=False)
    language = Store("agent_brain", DIMENSIONS, "cosine", "pg_catalog.english")
    statement = sql.SQL("EXPLAIN WITH {} SELECT * FROM ranked").format(
        ranking.ranked(language, shape)
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE agent_brain.chunks")
        rows = connection.execute(statement, ranking.parameters(language, query)).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert plan.count("Bitmap Index Scan on chunks_lexemes") == 2
    assert "Seq Scan on chunks" not in plan


async def test_abbreviations_and_full_words_find_each_other(backend: PostgresBackend) -> None:
    await store(backend, {**FILLER, "code": "def parse_str(arg)", "prose": "strings"})
    assert await found(backend, "string") == ["prose", "code"]
    assert await found(backend, "str") == ["code", "prose"]
