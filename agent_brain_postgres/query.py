"""Queries as people type them: any words, best match first, and `"phrases"`, `-word` and `OR`."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from operator import itemgetter

from agent_brain_postgres.abbreviations import OTHERS
from agent_brain_postgres.text import sanitize_text
from agent_brain_postgres.words import Token, Word, analyse, tokens

MAX_CHARACTERS = 20_000
"""What lies beyond this of a query is ignored."""

MAX_WORDS = 256
"""Distinct words of a query that are looked up; the search uses the weightiest of them."""

COMPOUND = 0.5
"""Weight of a compound beside its own parts (words that a hyphen joins, mostly)."""

IDENTIFIER = 1.0
"""The same where the spelling says that it is a name in code."""

ALONE = 4.0
"""The same where it is the whole query: whoever types one name wants that name first."""

ABBREVIATION = 0.25
"""Weight of the short for a long word, or the other way round."""

# A quotation mark or a minus sign is an operator only where a word could begin, and a quotation
# only ends where a word could end, so that pasted code stays words.
_CLAUSE = re.compile(r'(?<!\S)(-?)"([^"]*)"(?!\S)|(?<!\S)-(?=[^\s"-])(\S+)|(\S+)')
_OR = frozenset(("OR", "|", "||"))
_CODE = re.compile(r"[_./\d]|[a-z][A-Z]|[A-Z]{2}[a-z]")


@dataclass(frozen=True, slots=True)
class Query:
    """A query taken apart; `empty` when it has nothing to look for."""

    words: dict[tuple[str, bool], float]
    """(word, whether it is a lexeme already) -> weight: occurrences, compounds less."""
    sequence: list[Word] = field(default_factory=list)
    """The words in the order in which they stand, without compounds."""
    required: list[list[Word]] = field(default_factory=list)
    """Phrases that a result has."""
    excluded: list[list[Word]] = field(default_factory=list)
    """Words and phrases that a result does not have."""
    names: tuple[str, ...] = ()
    """Names in code exactly as they were typed."""

    @property
    def empty(self) -> bool:
        return not self.words


def parse(text: str) -> Query:
    """Take a query apart; every string is one."""
    wanted: list[str] = []
    required: list[str] = []
    excluded: list[str] = []
    for match in _CLAUSE.finditer(sanitize_text(text[:MAX_CHARACTERS])):
        minus, phrase, without, plain = match.groups()
        if phrase is not None:
            (excluded if minus else required).append(phrase)
        elif without is not None:
            excluded.append(without)
        elif plain not in _OR:
            wanted.append(plain)
    found = [(t, analyse(t)) for t in tokens(" ".join(wanted + required))]
    found = [(text, token) for text, token in found if token[0]]
    return Query(
        words=_weights(found),
        sequence=_sequence([token for _, token in found]),
        required=_phrases(required),
        excluded=_phrases(excluded),
        names=tuple(dict.fromkeys(text.strip("./-+#") for text, _ in found if _is_code(text)))[:4],
    )


def _is_code(token: str) -> bool:
    return _CODE.search(token.strip("./")) is not None


def _weights(found: list[tuple[str, Token]]) -> dict[tuple[str, bool], float]:
    weights: defaultdict[tuple[str, bool], float] = defaultdict(float)
    for text, token in found:
        alone = len(found) == 1
        compound = ALONE if alone else IDENTIFIER if _is_code(text) else COMPOUND
        for word, _, literal, is_compound in token[0]:
            weights[word, literal] += compound if is_compound else 1.0
            if not literal:
                for other in OTHERS.get(word.removesuffix("s"), ()):
                    weights[other, False] += ABBREVIATION
    return dict(sorted(weights.items(), key=itemgetter(1), reverse=True)[:MAX_WORDS])


def _sequence(found: list[Token]) -> list[Word]:
    words: list[Word] = []
    at = 0
    for token, positions in found:
        words += [
            (word, at + offset, literal, False)
            for word, offset, literal, compound in token
            if not compound
        ]
        at += positions
    return words


def _phrases(texts: list[str]) -> list[list[Word]]:
    phrases = [_sequence([analyse(t) for t in tokens(text)]) for text in texts]
    return [phrase for phrase in phrases if phrase]
