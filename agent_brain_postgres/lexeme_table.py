"""Tokens and lexemes by number, and what the server said each word's lexemes are."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from agent_brain_postgres import token_entries
from agent_brain_postgres.numbers import Column, Ints, Numbers, Texts, ranges
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.token_entries import FIRST_WORD, Codes, Entries
from agent_brain_postgres.words import DEFINING

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The lexemes of words, in one array: its rows would take longer to read than to make. A word that
# the server's parser cannot see at all is its own lexeme.
LEXEMES: LiteralString = """
SELECT pg_catalog.array_agg(CASE
    WHEN vector <> '' OR pg_catalog.to_tsvector('pg_catalog.simple', word) <> ''
    THEN pg_catalog.array_to_string(pg_catalog.tsvector_to_array(vector), %(between)s)
    ELSE word END ORDER BY number)
FROM (
    SELECT word, number, pg_catalog.to_tsvector(%(language)s::pg_catalog.regconfig, word) AS vector
    FROM pg_catalog.unnest(%(words)s::text[]) WITH ORDINALITY AS given (word, number)
    OFFSET 0
) AS words
"""

BETWEEN = "\x01"  # a character that is in no word

NOT_KNOWN = -1  # the number of lexemes of a word that the server has not been asked for


async def lexemes_of(
    connection: Connection, language: str, words: Iterable[str]
) -> dict[str, list[str]]:
    """Ask the server for the lexemes of words."""
    wanted = list(words)
    if not wanted:
        return {}
    values = {"language": language, "words": wanted, "between": BETWEEN}
    row = await (await connection.execute(LEXEMES, values)).fetchone()
    assert row is not None
    found = [lexemes.split(BETWEEN) if lexemes else [] for lexemes in row[0]]
    return dict(zip(wanted, found, strict=True))


class Table:
    """Tokens and lexemes, numbered; of each token, which lexemes it has and where.

    Numbers are given out under the lock and never change. What a token consists of is there once
    the server has said what the lexemes of its words are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens, self._words, self._lexemes = Numbers(), Numbers(), Numbers()
        self._codes = Codes(self._words, self._lexemes)
        # Of each word: its first lexeme in `_word_lexemes` and their number.
        self._word_starts, self._word_counts, self._word_lexemes = Column(), Column(), Column()
        self._waiting: list[Entries] = []
        # Of each token: its first entry and their number, the positions that it takes, how much
        # it adds to the length of a text, and whether the next token is a name it defines.
        self.starts, self.counts, self.positions = Column(), Column(), Column()
        self.lengths, self.defines = Column(), Column()
        # Of each entry: the lexeme and its offset within the token.
        self.lexemes, self.offsets = Column(), Column()
        self.names = Texts()

    def __len__(self) -> int:
        return len(self._tokens)

    def number(self, found: Sequence[str]) -> Ints:
        """Give the numbers of tokens; new ones get one."""
        with self._lock:
            numbers = self._tokens.of(found)
            new = self._tokens.texts[len(self.positions) :]
            if new:
                self._take_apart(new)
        return numbers

    def _take_apart(self, new: list[str]) -> None:
        entries, positions = token_entries.take_apart(new, self._codes)
        self._waiting.append(entries._replace(token=entries.token + len(self.positions)))
        self.positions.extend(positions)
        self.defines.extend(np.array([token in DEFINING for token in new], np.int64))
        for column in (self.starts, self.counts, self.lengths):
            column.fill(len(new), 0)
        words = len(self._words) - len(self._word_counts)
        self._word_starts.fill(words, 0)
        self._word_counts.fill(words, NOT_KNOWN)
        self._name_lexemes()

    def _name_lexemes(self) -> None:
        self.names.extend(self._lexemes.texts[len(self.names) :])

    def unknown_words(self) -> list[str]:
        """Give the words that the server has to be asked for."""
        with self._lock:
            unknown = np.flatnonzero(self._word_counts.values == NOT_KNOWN)
            return [self._words.texts[word] for word in unknown.tolist()]

    def learn(self, lexemes: Mapping[str, Sequence[str]]) -> None:
        """Take in what the server answered, and finish the tokens that waited for it."""
        with self._lock:
            words = self._words.of([*lexemes])
            counts = np.fromiter(map(len, lexemes.values()), np.int64, len(lexemes))
            self._word_starts.values[words] = np.cumsum(counts) - counts + len(self._word_lexemes)
            self._word_counts.values[words] = counts
            self._word_lexemes.extend(self._lexemes.of([*chain.from_iterable(lexemes.values())]))
            self._name_lexemes()
            if self._waiting:
                self._finish(token_entries.join(self._waiting))

    def _finish(self, entries: Entries) -> None:
        """Enter tokens; those with a word that another batch has just brought, and asks for, wait."""
        is_word = entries.code < 0
        word = FIRST_WORD - entries.code[is_word]
        counts = np.ones(entries.code.size, np.int64)
        counts[is_word] = self._word_counts.values[word]
        unknown = np.zeros(len(self.counts), np.bool_)
        unknown[entries.token[counts == NOT_KNOWN]] = True
        wait = unknown[entries.token]
        self._waiting = [entries.chosen(wait)] if wait.any() else []
        starts = np.zeros(entries.code.size, np.int64)
        starts[is_word] = self._word_starts.values[word]
        order = np.flatnonzero(~wait)
        order = order[np.argsort(entries.token[order], kind="stable")]
        self._enter(entries.chosen(order), starts[order], counts[order])

    def _enter(self, entries: Entries, starts: Ints, counts: Ints) -> None:
        """Put entries, sorted by token, at the end; words are replaced by their lexemes."""
        entry = np.repeat(np.arange(counts.size), counts)
        code = entries.code[entry]
        word = code < 0
        code[word] = self._word_lexemes.values[ranges(starts, counts)[word]]
        token = entries.token[entry]
        tokens = np.unique(entries.token)
        self.starts.values[tokens] = np.searchsorted(token, tokens) + len(self.lexemes)
        self.counts.values[tokens] = np.bincount(token, minlength=len(self.counts))[tokens]
        counted = entries.token[(counts > 0) & ~entries.compound]
        self.lengths.values[tokens] = np.bincount(counted, minlength=len(self.counts))[tokens]
        self.lexemes.extend(code)
        self.offsets.extend(entries.offset[entry])

    @property
    def unfinished(self) -> bool:
        """Tell whether tokens wait for `learn`."""
        return bool(self._waiting)
