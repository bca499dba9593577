"""The statements of the keyword ranking, as the pieces that `ranking` puts together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import LiteralString

WORDS: LiteralString = """
given AS MATERIALIZED (
    SELECT word, weight,
        CASE WHEN literal THEN ARRAY[word]
        ELSE pg_catalog.tsvector_to_array(
            pg_catalog.to_tsvector(%(kw_language)s::pg_catalog.regconfig, word)) END AS lexemes
    FROM ROWS FROM (
        pg_catalog.unnest(%(kw_words)s::text[]), pg_catalog.unnest(%(kw_literals)s::bool[]),
        pg_catalog.unnest(%(kw_weights)s::float8[])
    ) AS given (word, literal, weight)
),
corpus AS MATERIALIZED (
    SELECT greatest(sum(chunks), 1)::float8 AS chunks,
        greatest(sum(occurrences), 1)::float8 / greatest(sum(chunks), 1)::float8 AS average
    FROM {lexeme_statistics} WHERE lexeme = ''
),
terms AS MATERIALIZED (
    SELECT lexeme, frequency,
        weight * pg_catalog.ln(1 + greatest(corpus.chunks - frequency + 0.5, 0.5)
                                   / (frequency + 0.5)) AS gain,
        {quoted}::tsquery AS query
    FROM (
        SELECT lexeme, sum(weight) AS weight,
            (SELECT sum(chunks) FROM {lexeme_statistics} AS known
             WHERE known.lexeme = wanted.lexeme)::float8 AS frequency
        FROM (
            SELECT pg_catalog.unnest(lexemes) AS lexeme, weight FROM given
            UNION ALL
            -- `username` finds `userName` too, whose compound the language has not stemmed.
            SELECT word, weight * %(kw_compound)s FROM given
            WHERE lexemes <> '{{}}' AND word <> ALL (lexemes)
        ) AS wanted
        GROUP BY lexeme
    ) AS counted, corpus
    WHERE frequency > 0
    ORDER BY gain DESC, lexeme
    LIMIT {max_terms}
),"""

QUOTED: LiteralString = (
    r"""('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')"""
)

PLAN: LiteralString = """
ordered AS MATERIALIZED (
    SELECT query, frequency, gain, sum(frequency) OVER (ORDER BY frequency, lexeme) AS running
    FROM terms
),
frequent AS MATERIALIZED (
    SELECT query, gain, frequency / corpus.chunks AS share,
        (row_number() OVER (ORDER BY frequency, running) - 1)::int AS bit,
        (count(*) OVER ())::int AS words
    FROM (SELECT * FROM ordered WHERE running > {rare} ORDER BY running LIMIT 6) AS frequent, corpus
),
combinations AS (
    SELECT mask, sum(gain) AS gain, pg_catalog.string_agg(query::text, ' & ') AS query,
        -- As if independent, but that words of one question go together twice as often.
        exp(sum(ln(share))) * 2.0 ^ (count(*) - 1) * (SELECT chunks FROM corpus) AS chunks
    FROM pg_catalog.generate_series(1, 63) AS mask
    JOIN frequent ON (mask >> bit) & 1 = 1
    WHERE mask < (1 << words)
    GROUP BY mask, words
    HAVING count(*) <= 3 OR count(*) = words
),
chosen AS MATERIALIZED (
    SELECT mask, query FROM (
        SELECT mask, query, sum(chunks) OVER best AS running, row_number() OVER best AS rank
        FROM combinations WINDOW best AS (ORDER BY gain DESC, mask)
    ) AS summed
    WHERE running <= {budget}
        OR rank = 1 AND NOT EXISTS (SELECT FROM ordered WHERE running <= {rare})
),
plan AS MATERIALIZED (
    SELECT pg_catalog.string_agg(query, ' | ')::tsquery AS query FROM (
        SELECT query::text FROM ordered WHERE running <= {rare}
        UNION ALL
        SELECT '(' || query || ')' FROM chosen
        WHERE NOT EXISTS (
            SELECT FROM chosen AS part
            WHERE part.mask <> chosen.mask AND part.mask & chosen.mask = part.mask)
    ) AS alternatives
),
fallback AS MATERIALIZED (
    SELECT pg_catalog.string_agg(query::text, ' | ')::tsquery AS query FROM terms
),"""

# Phrases and excluded words, each as a tsquery of its words at their distances.
PHRASES: LiteralString = """
phrases AS MATERIALIZED (
    SELECT phrase, negative, pg_catalog.string_agg(
        CASE WHEN before IS NULL THEN '' ELSE '<' || position - before || '> ' END || lexemes, ' '
        ORDER BY position) AS query
    FROM (
        SELECT phrase, negative, position, lexemes,
            lag(position) OVER (PARTITION BY phrase ORDER BY position) AS before
        FROM (
            SELECT phrase, negative, position, (
                SELECT '(' || pg_catalog.string_agg({quoted}, ' | ') || ')'
                FROM pg_catalog.unnest(CASE WHEN literal THEN ARRAY[word]
                    ELSE pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(
                        %(kw_language)s::pg_catalog.regconfig, word)) END) AS lexeme
            ) AS lexemes
            FROM ROWS FROM (
                pg_catalog.unnest(%(kw_phrases)s::int[]),
                pg_catalog.unnest(%(kw_negative)s::bool[]),
                pg_catalog.unnest(%(kw_positions)s::int[]),
                pg_catalog.unnest(%(kw_phrase_words)s::text[]),
                pg_catalog.unnest(%(kw_phrase_literals)s::bool[])
            ) AS given (phrase, negative, position, word, literal)
        ) AS words
        WHERE lexemes IS NOT NULL
    ) AS placed
    GROUP BY phrase, negative
),
demanded AS MATERIALIZED (
    SELECT pg_catalog.string_agg('(' || query || ')', ' & ') FILTER (WHERE NOT negative)::tsquery
            AS required,
        pg_catalog.string_agg('!(' || query || ')', ' & ') FILTER (WHERE negative)::tsquery
            AS excluded
    FROM phrases
),
plan AS MATERIALIZED (
    SELECT CASE WHEN excluded IS NULL THEN query ELSE query && excluded END AS query
    FROM (SELECT coalesce(demanded.required, words.query) AS query, demanded.excluded
          FROM demanded, words) AS whole
),
fallback AS MATERIALIZED (
    SELECT CASE WHEN required IS NOT NULL THEN NULL
                WHEN excluded IS NULL THEN every.query ELSE every.query && excluded END AS query
    FROM demanded, every
),"""

# Term frequency and BM25 (Robertson et al., k1 = 1.5, b = 0.75) of one chunk.
FREQUENCY: LiteralString = """pg_catalog.round(
    1.0 / greatest(1.6449340668 - {rank} * 1.6449340668, 0.0038) - 0.5)"""

# The first score of every candidate: one expression for a fixed number of terms, twice as fast as
# a subquery over them. With u = pi²/6 - (sum of 1/j²), the frequency is close to 1/u - 1/2.
SCORED: LiteralString = """
    SELECT chunk_id, lexemes, norm, {total} AS score
    FROM (
        SELECT chunk_id, lexemes, norm, arguments.*, {measures}
        FROM (
            SELECT chunk_id, lexemes, 1.5 * (0.25 + 0.75 * length / average) AS norm
            FROM {chunks}, (SELECT average FROM corpus OFFSET 0) AS corpus
            WHERE {gate}lexemes OPERATOR(pg_catalog.@@) (SELECT query FROM {plan}) AND {condition}
            LIMIT {limit}
        ) AS matching, arguments
        OFFSET 0
    ) AS measured
    ORDER BY score DESC
    LIMIT {short_list}"""

ARGUMENT: LiteralString = """
        (pg_catalog.array_agg(query ORDER BY gain DESC, lexeme))[{n}] AS query{n},
        (pg_catalog.array_agg(gain ORDER BY gain DESC, lexeme))[{n}] AS gain{n}"""

MEASURE: LiteralString = """
            1.6449340668
                - 1.6449340668 * pg_catalog.ts_rank('{{1,1,1,1}}', lexemes, query{n}) AS u{n}"""

TERM: LiteralString = """
        CASE WHEN u{n} < 1.64 THEN gain{n} * 2.5 * (2 - u{n}) / (2 + u{n} * (2 * norm - 1))
            ELSE 0 END"""

RANKED: LiteralString = """
arguments AS MATERIALIZED (
    SELECT {arguments}
    FROM terms
),
candidates AS MATERIALIZED ({candidates}
),
completed AS MATERIALIZED ({completed}
),
pairs AS MATERIALIZED (
    SELECT least(one.gain, two.gain) AS gain,
        pg_catalog.tsquery_phrase(one.query, two.query)
        || pg_catalog.tsquery_phrase(one.query, two.query, 2) AS query
    FROM (
        SELECT lexemes[1] AS lexeme, lead(lexemes[1]) OVER (ORDER BY number) AS next
        FROM pg_catalog.unnest(%(kw_sequence)s::text[]) WITH ORDINALITY AS sequence (word, number)
        JOIN given USING (word)
        WHERE lexemes <> '{{}}'
    ) AS neighbours
    JOIN terms AS one ON one.lexeme = neighbours.lexeme
    JOIN terms AS two ON two.lexeme = neighbours.next
    WHERE one.lexeme <> two.lexeme
    GROUP BY one.lexeme, two.lexeme, one.gain, two.gain, one.query, two.query
),
short_list AS (
    SELECT * FROM candidates
    UNION ALL
    SELECT * FROM completed
    WHERE NOT EXISTS (SELECT FROM candidates WHERE candidates.chunk_id = completed.chunk_id)
    ORDER BY score DESC
    LIMIT {short_list}
),
ranked AS MATERIALIZED (
    SELECT chunk_id{matched}, coalesce((
        SELECT sum(gain * 2.5 * occurrences / (occurrences + norm))
        FROM (
            SELECT gain, {frequency} + CASE
                WHEN field = 0 THEN 0.0
                WHEN field < 0.6 THEN {heading_frequency}
                ELSE 2.0 * {title_frequency} END AS occurrences
            FROM (
                SELECT gain, pg_catalog.ts_rank('{{1,1,1,1}}', lexemes, query) AS rank,
                    pg_catalog.ts_rank('{{0,0,0.5,1}}', lexemes, query) AS field
                FROM terms OFFSET 0
            ) AS measured
            WHERE rank > 0
        ) AS counted
    ), 0.0) + coalesce((
        SELECT sum(gain * 1.0 / (1 + norm)) FROM pairs WHERE lexemes OPERATOR(pg_catalog.@@) query
    ), 0.0){spelling} AS score
    FROM short_list
    ORDER BY score DESC, chunk_id COLLATE "C"
    LIMIT {top_k}
)"""

MATCHED: LiteralString = """,
        ARRAY(SELECT lexeme FROM terms WHERE lexemes OPERATOR(pg_catalog.@@) query) AS matched"""

# Names exactly as typed come before the same words in another spelling.
SPELLING: LiteralString = """ + 0.25 * (
        SELECT count(*) FROM {chunks} AS chunk, pg_catalog.unnest(%(kw_names)s::text[]) AS name
        WHERE chunk.chunk_id = short_list.chunk_id AND pg_catalog.strpos(document, name) > 0
    )"""
