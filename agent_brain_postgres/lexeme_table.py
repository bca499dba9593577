"""Tokens and lexemes by number, and what the server said each word's lexemes are."""

from __future__ import annotations

import gc
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from agent_brain_postgres.pool import Connection
from agent_brain_postgres.tsvectors import Ints
from agent_brain_postgres.words import DEFINING, Token, analyse

if TYPE_CHECKING:
    from typing_extensions import LiteralString

MAX_LEXEME = 2_046
"""Bytes, of PostgreSQL."""

# Words to lexemes; a word that the server's parser cannot see at all is its own lexeme.
LEXEMES: LiteralString = """
SELECT word, CASE
    WHEN vector <> '' OR pg_catalog.to_tsvector('pg_catalog.simple', word) <> ''
    THEN pg_catalog.tsvector_to_array(vector) ELSE ARRAY[word] END
FROM (
    SELECT word, pg_catalog.to_tsvector(%s::pg_catalog.regconfig, word) AS vector
    FROM pg_catalog.unnest(%s::text[]) AS word
    OFFSET 0
) AS words
"""


async def lexemes_of(
    connection: Connection, language: str, words: Iterable[str]
) -> dict[str, list[str]]:
    """Ask the server for the lexemes of words."""
    wanted = list(words)
    if not wanted:
        return {}
    return dict(await (await connection.execute(LEXEMES, (language, wanted))).fetchall())


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector away while thousands of tuples are made that hold no cycle.

    It would visit them all, again and again: a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Numbers(dict[str, int]):
    """Strings numbered in the order of their first appearance; `new` collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, text: str) -> int:
        self.new.append(text)
        number = self[text] = len(self)
        return number


class Table:
    """Tokens and lexemes, numbered; of each token, which lexemes it has and where.

    Numbers are given out under `lock` and never change; a token whose words the server has not
    been asked for yet is in `unknown`. Flat arrays, not objects, hold what there are many of: the
    garbage collector would visit those again and again.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tokens = _Numbers()
        self.lexemes = _Numbers()
        self.names: list[bytes] = []
        self.words: dict[str, tuple[int, ...]] = {}
        self.unknown: list[tuple[int, Token]] = []
        # Of each token: its first entry and their number, the positions that it takes, how much
        # it adds to the length of a text, and whether the next token is a name it defines.
        self.tokens_data = [array("q") for _ in range(5)]
        # Of each entry: the lexeme and its offset within the token.
        self.entries_data = (array("q"), array("q"))

    def number(self, found: list[str]) -> Ints:
        """Give the numbers of tokens; new ones get one."""
        with self.lock:
            numbers = np.fromiter(map(self.tokens.__getitem__, found), np.int64, len(found))
            new = self.tokens.new
            with _without_collections():
                self.unknown += enumerate(map(analyse, new), len(self.tokens_data[0]))
            for data in self.tokens_data[:4]:
                data.extend([0] * len(new))
            self.tokens_data[4].extend([token in DEFINING for token in new])
            new.clear()
        return numbers

    def unknown_words(self) -> list[str]:
        """Give the words that the server has to be asked for."""
        with self.lock:
            wanted = {
                text
                for _, (words, _) in self.unknown
                for text, _, literal, _ in words
                if not literal
            }
            return list(wanted - self.words.keys())

    def learn(self, lexemes: Mapping[str, Sequence[str]]) -> None:
        """Take in what the server answered, and finish the tokens that waited for it."""
        with self.lock:
            for word, found in lexemes.items():
                self.words[word] = tuple(map(self._lexeme, found))
            waiting = []
            with _without_collections():
                for number, token in self.unknown:
                    try:
                        self._define(number, token)
                    except KeyError:  # another batch has just brought it, and asks itself
                        waiting.append((number, token))
            self.unknown = waiting

    def _define(self, number: int, token: Token) -> None:
        """Enter what a token consists of; runs for every distinct token, so it is kept plain."""
        lexemes, offsets = self.entries_data
        start, length = len(lexemes), 0
        words, positions = token
        try:
            for text, offset, literal, compound in words:
                found = (self._lexeme(text),) if literal else self.words[text]
                if found and not compound:
                    length += 1
                for lexeme in found:
                    if lexeme >= 0:
                        lexemes.append(lexeme)
                        offsets.append(offset)
        except KeyError:
            del lexemes[start:], offsets[start:]
            raise
        firsts, counts, places, lengths, _ = self.tokens_data
        firsts[number], counts[number] = start, len(lexemes) - start
        places[number], lengths[number] = positions, length

    def lexeme_list(self) -> list[str]:
        """Give the lexemes in the order of their numbers."""
        with self.lock:
            return list(self.lexemes)

    def _lexeme(self, lexeme: str) -> int:
        number = self.lexemes.get(lexeme)
        if number is None:
            name = lexeme.encode("utf-8", "replace").replace(b"\0", b"")
            if not 0 < len(name) <= MAX_LEXEME:
                return -1
            number = self.lexemes[lexeme]
            self.names.append(name)
        return number


class Arrays:
    """A table's tokens as arrays, for one batch."""

    def __init__(self, table: Table) -> None:
        with table.lock:
            copies = [np.array(data, np.int64) for data in (*table.tokens_data, *table.entries_data)]
            self.names = list(table.names)
        self.starts, self.counts, self.positions, self.lengths, self.defines = copies[:5]
        self.lexemes, self.offsets = copies[5:]
