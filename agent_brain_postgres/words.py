"""Words: how text and queries are cut, in one definition for both.

Two steps, so that the expensive one is done once per distinct token:

1. `tokens` cuts a text coarsely at white space and at the punctuation that never belongs to a name.
2. `analyse` takes one such token apart: ``HTTPServer2Config`` is the words http, server, 2, config and, so that the whole
   identifier finds it first, the compound ``httpserver2config``. ``os.path.join`` and ``src/app/main.py`` add
   themselves as they are, paths their last element too. Scripts without spaces become single characters and bigrams.

A word is not yet a lexeme: stemming and stop words are the server's (see `lexemes`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MAX_WORD = 200
"""Characters of a word or compound that count; a run without a break (base64, minified code) is cut here."""

_SEPARATORS = "\t\n\v\f\r\x1c\x1d\x1e\x1f !\"$%&'()*,:;<=>?@[\\]^`{|}~"
_COARSE = str.maketrans({c: " " for c in (*_SEPARATORS, *map(chr, range(32)), "\x7f")})
_COARSE_UNICODE = re.compile(
    r"[^\s\x00-\x20\x7f!\"$%&'()*,:;<=>?@\[\\\]^`{|}~\u2000-\u206f\u3001-\u3004\u3008-\u3020\ud800-\udfff]+"
)

_UNSPACED_RUN = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]+"
)

# A token's shape has one of A (upper case), a (other letter or mark), 0 (digit), \x01 (script without spaces) or the
# punctuation itself for each character; an ASCII token is its own shape.
_PART = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|\x01+")
_RUN = re.compile(r"[A-Za-z0-9]+|\x01+")
_NAME = re.compile(r"[A-Za-z0-9\x01]+(?:[_-]+[A-Za-z0-9\x01]+)*")
_JOINED = re.compile(r"[A-Za-z0-9\x01_-]+(?:[./]+[A-Za-z0-9\x01_-]+)+")
_PLUS_OR_SHARP = re.compile(r"[A-Za-z](?:\+\+|#)")
_ALTERNATIONS = 6
"""Changes between letters and digits within a name above which it is a hash or key, not words."""


class Word(NamedTuple):
    """One word of a token, lower case."""

    text: str
    offset: int
    """Position within the token; a compound shares the position of its first part."""
    literal: bool = False
    """True: the lexeme is the text as it is. False: the language decides (stem, stop word)."""
    compound: bool = False
    """True: made of other words of the token."""


class Token(NamedTuple):
    """The words of one token and the number of positions it takes."""

    words: tuple[Word, ...]
    positions: int


def tokens(text: str) -> list[str]:
    """Cut a text into coarse tokens."""
    if text.isascii():
        return text.translate(_COARSE).split()
    found = _COARSE_UNICODE.findall(text)
    if _UNSPACED_RUN.search(text) is None:
        return found
    return [piece for token in found for piece in _unspaced(token)]


def _unspaced(token: str) -> Iterator[str]:
    """Cut runs of a script without spaces into overlapping pairs, so that the distinct tokens stay few."""
    end = 0
    for run in _UNSPACED_RUN.finditer(token):
        if run.start() > end:
            yield token[end : run.start()]
        end = run.end()
        text = run.group()
        yield from (text[i : i + 2] for i in range(len(text)))
    if end < len(token):
        yield token[end:]


@lru_cache(maxsize=1 << 16)
def _kind(char: str) -> str:
    if _UNSPACED_RUN.match(char):
        return "\x01"
    category = unicodedata.category(char)
    if category in ("Lu", "Lt"):
        return "A"
    if category[0] in "LM":
        return "a"
    return "0" if category[0] == "N" else " "


def _shape(token: str) -> str:
    if token.isascii():
        return token
    return "".join(c if c.isascii() else _kind(c) for c in token)


def analyse(token: str) -> Token:
    """Take one coarse token apart."""
    if not token.isascii():
        token = unicodedata.normalize("NFKC", token)
    shape = _shape(token)
    words: list[Word] = []
    starts: dict[int, int] = {}  # where a part starts in the token -> its position
    position = 0
    for name in _NAME.finditer(shape):
        first = position
        starts[name.start()] = first
        parts = _parts(shape, name.start(), name.end())
        for start, end in parts:
            text = token[start:end].lower()
            if shape[start] == "\x01":  # a character and the one after it, see `_unspaced`
                words.append(Word(text[0], position, literal=True))
                if len(text) > 1:
                    words.append(Word(text[:2], position, literal=True, compound=True))
            else:
                words.append(Word(text[:MAX_WORD], position, literal=_has_digit(text)))
            position += 1
        if len(parts) > 1:
            words.append(_compound("".join(token[start:end] for start, end in parts), first))
    if "." in shape or "/" in shape:
        words.extend(_joined(token, shape, starts))
    if "+" in token or "#" in token:
        words.extend(
            Word(m.group().lower(), 0, literal=True, compound=True)
            for m in _PLUS_OR_SHARP.finditer(token[:100])
        )
    return Token(tuple(words), position)


def names(text: str) -> Iterator[tuple[str, tuple[Word, ...]]]:
    """Find the words and names of a text as they stand in it, each with the words it holds."""
    for token in tokens(text):
        yield from _names(token)


@lru_cache(maxsize=1 << 12)
def _names(token: str) -> tuple[tuple[str, tuple[Word, ...]], ...]:
    shape = _shape(token)
    found = [(m.start(), token[m.start() : m.end()]) for m in _NAME.finditer(shape)]
    if len(found) == 1:
        return ((found[0][1], analyse(token).words),)
    whole = [word for word in analyse(token).words if not _PART.fullmatch(word.text)]
    named = [(name, analyse(name).words) for _, name in found]
    if whole:
        named.append((token.strip("./"), tuple(whole)))
    return tuple(named)


def _parts(shape: str, start: int, end: int) -> list[tuple[int, int]]:
    parts = [m.span() for m in _PART.finditer(shape, start, end)]
    if len(parts) < _ALTERNATIONS:
        return parts
    digits = sum(shape[a].isdigit() for a, _ in parts)
    if digits >= _ALTERNATIONS // 2 and len(parts) - digits >= _ALTERNATIONS // 2:
        # A hash or an opaque key: its fragments say nothing.
        return [m.span() for m in _RUN.finditer(shape, start, end)]
    return parts


def _compound(text: str, offset: int) -> Word:
    return Word(text.lower()[:MAX_WORD], offset, literal=True, compound=True)


def _has_digit(text: str) -> bool:
    return not text.isalpha() and any(map(str.isdigit, text))


def _joined(token: str, shape: str, starts: dict[int, int]) -> list[Word]:
    """Dotted names and paths as they are, and the last element of a path."""
    words = []
    for match in _JOINED.finditer(shape):
        text = token[match.start() : match.end()].lower()
        offset = min((p for start, p in starts.items() if start >= match.start()), default=0)
        words.append(Word(text[-MAX_WORD:], offset, literal=True, compound=True))
        tail = text.rpartition("/")[2]
        if tail != text and "." in tail:
            words.append(Word(tail[:MAX_WORD], offset, literal=True, compound=True))
    return words
