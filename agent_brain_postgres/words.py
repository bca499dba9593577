"""Words: how text and queries are cut, in one definition for both.

Two steps, so that the expensive one is done once per distinct token:

1. `tokens` cuts a text coarsely, at white space and at the punctuation that never belongs to a
   name.
2. `analyse` takes one such token apart: ``HTTPServer2Config`` is the words http, server, 2 and
   config and, so that the whole identifier finds it first, the compound ``httpserver2config``.
   ``os.path.join`` and ``src/app/main.py`` are compounds as they stand, and so is the last element
   of a path. Scripts without spaces become single characters and pairs of them.

A word is not yet a lexeme: stemming and stop words are the server's (see `lexemes`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

MAX_WORD = 200
"""Characters of a word or compound that count: a run without a break (base64) is cut here."""

DEFINING = frozenset(("class", "def", "enum", "fn", "func", "function", "interface", "struct"))
"""Tokens after which code says a name for the first time; that name counts like a heading."""

_SEPARATORS = "!\"$%&'()*,:;<=>?@[\\]^`{|}~\x7f" + "".join(map(chr, range(33)))
_COARSE = bytes.maketrans(_SEPARATORS.encode(), b" " * len(_SEPARATORS))
_COARSE_UNICODE = re.compile(
    r"[^\s\x00-\x20\x7f!\"$%&'()*,:;<=>?@\[\\\]^`{|}~"
    r"\u2000-\u206f\u3001-\u3004\u3008-\u3020\ud800-\udfff]+"
)
# Thai, Lao, Burmese, Khmer, Chinese, Japanese; and Korean, whose words take many endings.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]+"
)

_SIMPLE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_PART = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|\x01+")
_RUN = re.compile(r"[A-Za-z0-9]+|\x01+")
_NAME = re.compile(r"[A-Za-z0-9\x01]+(?:[_-]+[A-Za-z0-9\x01]+)*")
_PATH = re.compile(r"[A-Za-z0-9\x01_.\-/]+")
_PLUS_OR_SHARP = re.compile(r"(?<![A-Za-z0-9])[A-Za-z](?:\+\+|#)")
OPAQUE = 3
"""Letter runs and digit runs within a name from which on it is a hash or key, not words."""


# One word of a token: its text in lower case; its position within the token, where a compound has
# that of its first part; whether the text is the lexeme already, or the language decides (stem,
# stop word); and whether it is a compound, made of other words of the token. Plain tuples, because
# there are millions, and the garbage collector stops following those.
Word = tuple[str, int, bool, bool]

# The words of a token, and the number of positions that it takes.
Token = tuple[tuple[Word, ...], int]


def tokens(text: str) -> list[str]:
    """Cut a text into coarse tokens."""
    return spaced(text).decode().split()


def spaced(text: str) -> bytes:
    """Give a text in UTF-8, its tokens with nothing but spaces between them."""
    if text.isascii():
        return text.encode().translate(_COARSE)  # four times as fast as on `str`
    found = _COARSE_UNICODE.findall(text)
    if _UNSPACED.search(text) is not None:
        found = [piece for token in found for piece in _unspaced(token)]
    return " ".join(found).encode()


def _unspaced(token: str) -> Iterator[str]:
    """Cut runs without spaces into overlapping pairs, so that the distinct tokens stay few."""
    end = 0
    for run in _UNSPACED.finditer(token):
        if run.start() > end:
            yield token[end : run.start()]
        end = run.end()
        text = run.group()
        yield from (text[i : i + 2] for i in range(len(text)))
    if end < len(token):
        yield token[end:]


def analyse(token: str) -> Token:
    """Take one coarse token apart."""
    if _SIMPLE.fullmatch(token):
        return ((token[:MAX_WORD].lower(), 0, False, False),), 1
    if not token.isascii():
        token = unicodedata.normalize("NFKC", token)
    elif "+" not in token and "#" not in token:
        return _path(token)
    words: list[Word] = []
    positions = 0
    for match in _PATH.finditer(_shape(token)):
        found, taken = _path(token[match.start() : match.end()])
        words += _moved(found, positions)
        positions += taken
    words += [(name.lower(), 0, True, True) for name in _PLUS_OR_SHARP.findall(token)]
    return tuple(words), positions


def _moved(words: tuple[Word, ...], by: int) -> Iterable[Word]:
    if not by:
        return words
    return [(text, by + offset, literal, compound) for text, offset, literal, compound in words]


def _path(path: str) -> Token:
    """Take apart what has no other punctuation than ``_ - . /``."""
    path = path.strip("./")
    elements = path.replace("/", ".").split(".")
    if len(elements) == 1:
        return _name(path)
    words: list[Word] = []
    positions = 0
    for element in elements:
        found, taken = _name(element)
        words += _moved(found, positions)
        positions += taken
    if positions:
        path = path.lower()
        words.append((path[-MAX_WORD:], 0, True, True))
        tail = path.rpartition("/")[2]
        if tail != path and "." in tail:
            words.append((tail[-MAX_WORD:], 0, True, True))
    return tuple(words), positions


@lru_cache(maxsize=1 << 16)
def _name(name: str) -> Token:
    """Take a name apart: ``getUserName``, ``SCREAMING_CASE``, ``kebab-case``."""
    shape = _shape(name)
    if shape[:1] == "\x01" and len(name) < 3:  # a character and its successor, see `_unspaced`
        pair = ((name, 0, True, True),) if len(name) == 2 else ()
        return ((name[0], 0, True, False), *pair), 1
    parts = _PART.findall(shape)
    numbers = sum(map(str.isdigit, parts))
    opaque = min(numbers, len(parts) - numbers) >= OPAQUE
    if opaque:
        parts = _RUN.findall(shape)
    if shape is not name:
        parts = list(_slices(name, shape, parts))
    parts = [part.lower() for part in parts]
    words = [
        (part[:MAX_WORD], i, opaque or part.isdigit(), False) for i, part in enumerate(parts)
    ]
    if len(parts) > 1:
        words.append(("".join(parts)[:MAX_WORD], 0, True, True))
    return tuple(words), len(parts)


def _slices(text: str, shape: str, parts: list[str]) -> Iterator[str]:
    """Give what stands in `text` where `parts` stand, in this order, in its `shape`."""
    at = 0
    for part in parts:
        at = shape.index(part, at)
        yield text[at : at + len(part)]
        at += len(part)


def _shape(text: str) -> str:
    """Stand for each character with one of its kind that is ASCII; ASCII stands for itself.

    ``A`` is an upper-case letter, ``a`` another letter or a mark, ``0`` a digit, ``\\x01`` a
    character of a script without spaces, and a space is all the rest.
    """
    if text.isascii():
        return text
    return "".join(map(_kind, text))


@lru_cache(maxsize=1 << 14)
def _kind(char: str) -> str:
    if char.isascii():
        return char
    if _UNSPACED.match(char):
        return "\x01"
    category = unicodedata.category(char)
    if category in ("Lu", "Lt"):
        return "A"
    if category[0] in "LM":
        return "a"
    return "0" if category[0] == "N" else " "


def names(text: str) -> Iterator[tuple[str, tuple[Word, ...]]]:
    """Find the words and names of a text as they stand in it, each with the words it holds."""
    for token in tokens(text):
        yield from _names(token)


@lru_cache(maxsize=1 << 12)
def _names(token: str) -> tuple[tuple[str, tuple[Word, ...]], ...]:
    found = [token[m.start() : m.end()] for m in _NAME.finditer(_shape(token))]
    words, _ = analyse(token)
    if len(found) == 1:
        return ((found[0], words),)
    whole = tuple(word for word in words if word[3] and not word[0].isalnum())
    named = [(name, analyse(name)[0]) for name in found]
    return (*named, (token.strip("./-+#"), whole)) if whole else tuple(named)
