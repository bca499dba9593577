"""The keyword ranking in plain Python: BM25 of every chunk, as docs/search.md gives it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

K1, B = 1.5, 0.75

Document = Sequence[str]


def scores(documents: Mapping[str, Document], query: Sequence[str]) -> dict[str, float]:
    """Score documents of lexemes for a query of lexemes; those without any of them are left out."""
    count = len(documents)
    average = sum(map(len, documents.values())) / count
    frequencies = Counter(lexeme for document in documents.values() for lexeme in set(document))
    found = {}
    for name, document in documents.items():
        occurrences = Counter(document)
        norm = K1 * (1 - B + B * len(document) / average)
        score = 0.0
        for lexeme, weight in Counter(query).items():
            n, tf = frequencies[lexeme], occurrences[lexeme]
            if tf:
                idf = math.log(1 + (count - n + 0.5) / (n + 0.5))
                score += weight * idf * (K1 + 1) * tf / (tf + norm)
        if score:
            found[name] = score
    return found
