"""Tokens taken apart all at once, against one at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_brain_postgres.numbers import Numbers
from agent_brain_postgres.slices import Slices
from agent_brain_postgres.token_entries import Lexicon, take_apart
from agent_brain_postgres.words import MAX_WORD, Word, analyse

TOKEN = st.text(st.sampled_from("aAbsSZ019_-./"), min_size=1, max_size=14) | st.sampled_from(
    ["getUserNames", "URLs", "src/app/main.py", "./lib//x.so", "a..b", "3f8a9b2c7d1e", "Ünïcode",
     "C++", "x+y", "日本", "x" * (MAX_WORD + 5), "a.B" * MAX_WORD, "...", "v1.2.3", "#c15"]
)  # fmt: skip


@given(batches=st.lists(st.lists(TOKEN, unique=True, max_size=20), max_size=3))
def test_many_are_taken_apart_as_one_is(batches: list[list[str]]) -> None:
    lexicon = Lexicon(Numbers(), Numbers())
    for tokens in batches:
        entries, positions = take_apart(Slices.of(tokens), lexicon)
        texts, literals = (known.texts[:].texts() for known in (lexicon.words, lexicon.lexemes))
        found: list[list[Word]] = [[] for _ in tokens]
        columns = (column.tolist() for column in entries)
        for token, code, offset, compound in zip(*columns, strict=True):
            text = literals[code] if code >= 0 else texts[~code]
            found[token].append((text, offset, code >= 0, compound))
        expected = [analyse(token) for token in tokens]
        assert [sorted(one) for one in found] == [sorted(words) for words, _ in expected]
        assert positions.tolist() == [taken for _, taken in expected]
