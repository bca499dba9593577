"""What programmers write short in names and in full in questions."""

from __future__ import annotations

_PAIRS = """
addr address, arg argument, arr array, attr attribute, auth authentication, avg average,
bool boolean, buf buffer, calc calculate, cfg config, char character, cmd command, col column,
config configuration, conn connection, ctx context, cur current, db database, del delete,
desc description, dest destination, dict dictionary, diff difference, dir directory,
doc document, dst destination, elem element, env environment, err error, exec execute,
expr expression, ext extension, fmt format, fn function, func function, gen generate, id identifier,
idx index, img image, impl implementation, info information, init initialize, int integer,
iter iterate, len length, lib library, loc location, mat matrix, max maximum, mem memory,
min minimum, msg message, num number, obj object, param parameter, pkg package, pos position,
prev previous, proc process, prop property, ptr pointer, pwd password, rand random,
rect rectangle, ref reference, regex expression, repo repository, req request, resp response,
ret return, sep separator, seq sequence, spec specification, src source, stmt statement,
str string, sync synchronize, temp temporary, tmp temporary, usr user, val value, var variable,
vec vector
"""


def _table() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for pair in _PAIRS.replace("\n", " ").split(","):
        short, full = pair.split()
        table[short] = (*table.get(short, ()), full)
        table[full] = (*table.get(full, ()), short)
    return table


OTHERS = _table()
"""A word, in lower case, and the words that stand for the same."""
