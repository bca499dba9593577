"""Tokens and lexemes by number, and what the server said each word's lexemes are."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from agent_brain_postgres import token_entries, tsvectors
from agent_brain_postgres.arrays import Column, Ints, ranges
from agent_brain_postgres.numbers import Numbers
from agent_brain_postgres.pool import Connection
from agent_brain_postgres.slices import NEWLINE, PADDING, Slices, Texts
from agent_brain_postgres.token_entries import Entries, Lexicon
from agent_brain_postgres.words import DEFINING

if TYPE_CHECKING:
    from typing_extensions import LiteralString

# The lexemes of words, a line each. All in one text, because rows and arrays would take longer to
# read than to make. A word that the server's parser cannot see at all is its own lexeme.
LEXEMES: LiteralString = """
SELECT pg_catalog.string_agg(CASE
    WHEN vector <> '' OR pg_catalog.to_tsvector('pg_catalog.simple', word) <> ''
    THEN pg_catalog.array_to_string(pg_catalog.tsvector_to_array(vector), %(between)s)
    ELSE word END, E'\n' ORDER BY number)
FROM (
    SELECT word, number, pg_catalog.to_tsvector(%(language)s::pg_catalog.regconfig, word) AS vector
    FROM pg_catalog.unnest(pg_catalog.string_to_array(%(words)s, E'\n'))
        WITH ORDINALITY AS given (word, number)
    OFFSET 0
) AS words
"""

BETWEEN = "\x01"  # a character that is in no word, as the newline is

NOT_KNOWN = -1  # the number of lexemes of a word that the server has not been asked for


async def ask(connection: Connection, language: str, words: str) -> str:
    """Ask the server for the lexemes of words: of each line of `words`, with `BETWEEN` between."""
    values = {"language": language, "words": words, "between": BETWEEN}
    row = await (await connection.execute(LEXEMES, values)).fetchone()
    assert row is not None
    return row[0] or ""


async def lexemes_of(
    connection: Connection, language: str, words: Iterable[str]
) -> dict[str, list[str]]:
    """Give the lexemes of words, as the server says."""
    wanted = list(words)
    if not wanted:
        return {}
    lines = (await ask(connection, language, "\n".join(wanted))).split("\n")
    found = [line.split(BETWEEN) if line else [] for line in lines]
    return dict(zip(wanted, found, strict=True))


class Table:
    """Tokens and lexemes, numbered; of each token, which lexemes it has and where.

    Numbers are given out under the lock and never change. What a token consists of is there once
    the server has said what the lexemes of its words are. The tokens of `DEFINING` come first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = Numbers()
        self._lexicon = Lexicon(Numbers(), Numbers())
        # Of each word: its first lexeme in `_word_lexemes` and their number.
        self._word_starts, self._word_counts, self._word_lexemes = Column(), Column(), Column()
        self._waiting: list[Entries] = []
        # Of each token: its first entry and their number, the positions that it takes, and how
        # much it adds to the length of a text.
        self.starts, self.counts, self.positions = Column(), Column(), Column()
        self.lengths = Column()
        # Of each entry: the lexeme and its offset within the token, as `tsvectors` sorts them.
        self.entries = Column()
        self.number(Slices.of(sorted(DEFINING)))

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def text_size(self) -> int:
        """How many bytes the tokens, words and lexemes take."""
        return sum(n.texts.size for n in (self._tokens, self._lexicon.words, self._lexicon.lexemes))

    @property
    def names(self) -> Texts:
        """The lexemes."""
        return self._lexicon.lexemes.texts

    def number(self, tokens: Slices) -> Ints:
        """Give the numbers of tokens; new ones get one."""
        with self._lock:
            numbers = self._tokens.of(tokens)
            if len(self._tokens) > len(self.positions):
                self._take_apart(self._tokens.texts[len(self.positions) :])
        return numbers

    def _take_apart(self, new: Slices) -> None:
        entries, positions = token_entries.take_apart(new, self._lexicon)
        self._waiting.append(entries._replace(token=entries.token + len(self.positions)))
        self.positions.extend(positions)
        for column in (self.starts, self.counts, self.lengths):
            column.fill(len(new), 0)
        words = len(self._lexicon.words) - len(self._word_counts)
        self._word_starts.fill(words, 0)
        self._word_counts.fill(words, NOT_KNOWN)

    def unknown_words(self) -> tuple[Ints, str]:
        """Give the words that the server has to be asked for: their numbers, and a line each."""
        with self._lock:
            unknown = np.flatnonzero(self._word_counts.values == NOT_KNOWN)
            return unknown, self._lexicon.words.texts[unknown].joined()

    def learn(self, words: Ints, answer: str) -> None:
        """Take in what the server answered, and finish the tokens that waited for it."""
        with self._lock:
            if words.size:
                self._enter_words(words, answer)
            if self._waiting:
                self._finish(token_entries.join(self._waiting))

    def _enter_words(self, words: Ints, answer: str) -> None:
        lines = b"".join([bytes(PADDING), answer.encode(), b"\n", bytes(PADDING)])
        buffer = np.frombuffer(lines, np.uint8)
        ends = np.flatnonzero((buffer == NEWLINE) | (buffer == ord(BETWEEN)))
        starts = np.append(PADDING, ends[:-1] + 1)
        last = buffer[ends] == NEWLINE
        word = np.cumsum(last) - last
        some = ends > starts
        counts = np.bincount(word[some], minlength=words.size)
        self._word_starts.values[words] = np.cumsum(counts) - counts + len(self._word_lexemes)
        self._word_counts.values[words] = counts
        lexemes = Slices(buffer, starts[some], ends[some] - starts[some])
        self._word_lexemes.extend(self._lexicon.lexemes.of(lexemes))

    def _finish(self, entries: Entries) -> None:
        """Enter tokens; those with a word that another batch has just brought, and asks for, wait."""
        is_word = entries.code < 0
        word = ~entries.code[is_word]
        counts = np.ones(entries.code.size, np.int64)
        counts[is_word] = self._word_counts.values[word]
        unknown = np.zeros(len(self.counts), np.bool_)
        unknown[entries.token[counts == NOT_KNOWN]] = True
        wait = unknown[entries.token]
        starts = np.zeros(entries.code.size, np.int64)
        starts[is_word] = self._word_starts.values[word]
        order = np.flatnonzero(~wait)
        order = order[np.argsort(entries.token[order], kind="stable")]
        self._enter(entries.chosen(order), starts[order], counts[order])
        # Last, since others ask without the lock whether tokens wait.
        self._waiting = [entries.chosen(wait)] if wait.any() else []

    def _enter(self, entries: Entries, starts: Ints, counts: Ints) -> None:
        """Put entries, sorted by token, at the end; words are replaced by their lexemes."""
        entry = np.repeat(np.arange(counts.size), counts)
        code = entries.code[entry]
        word = code < 0
        code[word] = self._word_lexemes.values[ranges(starts, counts)[word]]
        token = entries.token[entry]
        tokens = np.unique(entries.token)
        self.starts.values[tokens] = np.searchsorted(token, tokens) + len(self.entries)
        self.counts.values[tokens] = np.bincount(token, minlength=len(self.counts))[tokens]
        counted = entries.token[(counts > 0) & ~entries.compound]
        self.lengths.values[tokens] = np.bincount(counted, minlength=len(self.counts))[tokens]
        self.entries.extend(tsvectors.lexeme_keys(code, entries.offset[entry]))

    @property
    def unfinished(self) -> bool:
        """Tell whether tokens wait for `learn`."""
        return bool(self._waiting)
