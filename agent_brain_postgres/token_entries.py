"""Thousands of tokens taken apart at once: what `words.analyse` says of each, as arrays.

`words.analyse` is the definition. Plain tokens (letters, digits and ``_ - . /`` of ASCII: nearly all
of code and of English) are cut all together, by the kinds of their characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_brain_postgres.arrays import Bools, Ints, changes, lasts
from agent_brain_postgres.numbers import Numbers
from agent_brain_postgres.slices import PADDING, Slices
from agent_brain_postgres.words import MAX_WORD, OPAQUE, Word, analyse

_LOWER, _UPPER, _DIGIT, _JOIN, _CUT, _END, _ODD = range(7)  # kinds of characters


def _kinds() -> NDArray[np.uint8]:
    kinds = np.full(256, _ODD, np.uint8)
    for kind, first, last in ((_LOWER, "a", "z"), (_UPPER, "A", "Z"), (_DIGIT, "0", "9")):
        kinds[ord(first) : ord(last) + 1] = kind
    for kind, characters in ((_JOIN, "_-"), (_CUT, "./"), (_END, "\n")):
        kinds[[ord(character) for character in characters]] = kind
    return kinds


_KINDS = _kinds()
_LOWERED = np.frombuffer(bytes(range(256)).lower(), np.uint8)
_S, _DOT, _SLASH = b"s./"


class Entries(NamedTuple):
    """Words of tokens, in arrays of one length."""

    token: Ints
    code: Ints
    """The number of a lexeme; or, inverted, of a word that the language decides."""
    offset: Ints
    """Positions after the first of the token."""
    compound: Bools

    def chosen(self, which: Bools | Ints) -> Entries:
        """Give some of them."""
        token, code, offset, compound = self
        return Entries(token[which], code[which], offset[which], compound[which])


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words, which the language makes lexemes of, and what is a lexeme as it stands."""

    words: Numbers
    lexemes: Numbers

    def codes(self, texts: Slices, literal: Bools) -> Ints:
        """Give the codes of words; `literal` are those that are lexemes already."""
        codes = np.empty(len(texts), np.int64)
        codes[literal] = self.lexemes.of(texts.chosen(literal))
        codes[~literal] = ~self.words.of(texts.chosen(~literal))
        return codes


def join(parts: Sequence[Entries]) -> Entries:
    """Put entries together."""
    token, code, offset, compound = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Entries(token, code, offset, compound)


def take_apart(tokens: Slices, lexicon: Lexicon) -> tuple[Entries, Ints]:
    """Give the words of tokens, by the places of these, and the positions of each."""
    # Of a longer one, which is not plain, enough to see that.
    lines = _Lines.of(replace(tokens, sizes=np.minimum(tokens.sizes, MAX_WORD + 1)))
    parts = _Parts.of(lines)
    plain = _are_plain(lines, parts)
    parts = parts.chosen(plain[parts.token])
    positions = np.bincount(parts.token, minlength=len(tokens))
    lexemes = lexicon.lexemes
    others = np.flatnonzero(~plain)
    analysed = [analyse(token) for token in tokens.chosen(others).texts()]
    positions[others] = [taken for _, taken in analysed]
    entries = (
        _words(lines, parts, lexicon),
        _compound_names(lines, parts, lexemes),
        _paths(lines, plain & (positions > 0), lexemes),
        _entries(others, [words for words, _ in analysed], lexicon),
    )
    return join(entries), positions


def _entries(tokens: Ints, words: Sequence[tuple[Word, ...]], lexicon: Lexicon) -> Entries:
    token = np.repeat(tokens, np.array([len(of_token) for of_token in words], np.int64))
    columns = zip(*chain.from_iterable(words), strict=True)
    text, offset, literal, compound = columns if token.size else ((), (), (), ())
    code = lexicon.codes(Slices.of(text), np.array(literal, np.bool_))
    return Entries(token, code, np.array(offset, np.int64), np.array(compound, np.bool_))


class _Lines(NamedTuple):
    """Tokens, one a line; and of each byte its kind and the token that it is of."""

    tokens: Slices
    lower: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    token: Ints

    @classmethod
    def of(cls, tokens: Slices) -> _Lines:
        lines = tokens.lines()
        kind = _KINDS[lines.buffer]
        return cls(lines, _LOWERED[lines.buffer], kind, np.cumsum(kind == _END) - PADDING)


class _Parts(NamedTuple):
    """Runs of letters and runs of digits: what names consist of."""

    starts: Ints
    ends: Ints
    token: Ints
    is_number: Bools
    offset: Ints
    """Positions after the first of the token."""

    @classmethod
    def of(cls, lines: _Lines) -> _Parts:
        begins = _begins(lines)
        solid = lines.kind <= _DIGIT
        starts = np.flatnonzero(begins)
        ends = np.flatnonzero(solid[:-1] & (begins[1:] | ~solid[1:])) + 1
        token = lines.token[starts]
        count = np.bincount(token)
        offset = np.arange(starts.size) - (np.cumsum(count) - count)[token]
        return cls(starts, ends, token, lines.kind[starts] == _DIGIT, offset)

    def chosen(self, which: Bools) -> _Parts:
        starts, ends, token, is_number, offset = self
        return _Parts(
            starts[which], ends[which], token[which], is_number[which], offset[which]
        )


def _begins(lines: _Lines) -> Bools:
    """Tell where a part begins: where a letter or digit follows upon another kind.

    But an upper-case letter goes with the lower-case ones after it, and a plural with its
    abbreviation: ``HTTPServer`` is cut before the second S, ``URLs`` is not cut.
    """
    kind, begins = lines.kind, np.zeros(lines.kind.size, np.bool_)
    begins[1:] = (kind[1:] != kind[:-1]) & (kind[1:] <= _DIGIT)
    lower = np.flatnonzero((kind[:-1] == _UPPER) & (kind[1:] == _LOWER)) + 1
    begins[lower] = False
    abbreviated = kind[lower - 2] == _UPPER
    plural = (lines.lower[lower] == _S) & (kind[lower + 1] != _LOWER)
    begins[lower[abbreviated & ~plural] - 1] = True
    return begins


class _Names(NamedTuple):
    """What stands between dots and slashes: by the number of its first part, and how many it has."""

    first: Ints
    size: Ints

    @classmethod
    def of(cls, lines: _Lines, parts: _Parts) -> _Names:
        name = np.cumsum((lines.kind == _CUT) | (lines.kind == _END))[parts.starts]
        first = np.flatnonzero(changes(name))
        return cls(first, np.diff(np.append(first, name.size)))


def _are_plain(lines: _Lines, parts: _Parts) -> Bools:
    """Tell which tokens have no other characters than those of names, and no hash or key."""
    plain = lines.tokens.sizes <= MAX_WORD
    plain[lines.token[lines.kind == _ODD]] = False
    names = _Names.of(lines, parts)
    if names.first.size:
        numbers = np.add.reduceat(parts.is_number.astype(np.int64), names.first)
        opaque = np.minimum(numbers, names.size - numbers) >= OPAQUE
        plain[parts.token[names.first[opaque]]] = False
    return plain


def _words(lines: _Lines, parts: _Parts, lexicon: Lexicon) -> Entries:
    code = lexicon.codes(
        Slices(lines.lower, parts.starts, parts.ends - parts.starts), parts.is_number
    )
    return Entries(parts.token, code, parts.offset, np.zeros(code.size, np.bool_))


def _compound_names(lines: _Lines, parts: _Parts, lexemes: Numbers) -> Entries:
    """Give names of several parts, written without what joins these."""
    names = _Names.of(lines, parts)
    first, size = (column[names.size > 1] for column in names)
    kept = lines.kind != _JOIN
    place = np.cumsum(kept) - kept
    starts, ends = place[parts.starts[first]], place[parts.ends[first + size - 1]]
    code = lexemes.of(Slices(lines.lower[kept], starts, ends - starts))
    return Entries(parts.token[first], code, parts.offset[first], np.ones(code.size, np.bool_))


def _paths(lines: _Lines, wanted: Bools, lexemes: Numbers) -> Entries:
    """Give the tokens that dots or slashes cut, as they stand; and the last elements of paths."""
    inner = np.flatnonzero(lines.kind < _CUT)
    owner = lines.token[inner]
    first, last = changes(owner), lasts(owner)
    starts, ends, dot, slash = np.zeros((4, len(lines.tokens)), np.int64)
    starts[owner[first]], ends[owner[last]] = inner[first], inner[last] + 1
    cuts = np.flatnonzero(lines.kind == _CUT)
    owner = lines.token[cuts]
    within = (cuts > starts[owner]) & (cuts < ends[owner]) & wanted[owner]
    cuts, owner = cuts[within], owner[within]
    for at, character in ((dot, _DOT), (slash, _SLASH)):
        here = np.flatnonzero(lines.lower[cuts] == character)
        here = here[lasts(owner[here])]
        at[owner[here]] = cuts[here]
    path = np.unique(owner)
    tail = np.flatnonzero((slash > 0) & (dot > slash))
    token = np.append(path, tail)
    begin = np.append(starts[path], slash[tail] + 1)
    code = lexemes.of(Slices(lines.lower, begin, ends[token] - begin))
    return Entries(token, code, np.zeros(code.size, np.int64), np.ones(code.size, np.bool_))
