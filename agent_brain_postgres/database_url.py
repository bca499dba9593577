"""``DATABASE_URL`` and other connection strings: libpq parses them, this names the parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# libpq's name of a parameter -> the setting that holds it.
SETTING_OF = {
    "host": "host",
    "port": "port",
    "dbname": "database",
    "user": "user",
    "password": "password",
    "sslmode": "ssl_mode",
    "sslrootcert": "ssl_root_cert",
    "sslcert": "ssl_cert",
    "sslkey": "ssl_key",
}
# A URL speaks for the whole connection: what it leaves out takes the default, not another file's.
CONNECTION = ("host", "port", "database", "user", "password")
# Parameters that are no settings of ours and must not be shown either.
SECRET_OPTIONS = frozenset({"oauth_client_secret", "scram_client_key", "sslpassword"})

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
_ENCODE = (
    "special characters in its parts must be percent-encoded "
    "(@ is %40, / is %2F, : is %3A, % is %25)"
)


class MalformedURL(ValueError):
    """A connection string is malformed; the message never quotes it, as it holds a password."""


class ParsedURL(NamedTuple):
    """Settings named by this package, and libpq parameters that are no setting of it."""

    settings: dict[str, str]
    options: dict[str, str]


def parse(url: str) -> ParsedURL:
    """Split a URL, or a ``key=value`` string, into settings and further libpq parameters.

    Driver names as in ``postgresql+asyncpg://`` are dropped. With several hosts `host` and
    ``options["port"]`` are libpq's comma-separated lists, and `port` is the first host's.
    """
    parameters = _libpq(_normalised(url.strip()))
    settings = {SETTING_OF[name]: value for name, value in parameters.items() if name in SETTING_OF}
    options = {name: value for name, value in parameters.items() if name not in SETTING_OF}
    if "," in settings.get("port", ""):
        ports = _ports(settings["port"])
        settings["port"] = ports[0]
        if len(set(ports)) > 1:
            options["port"] = ",".join(ports)
    return ParsedURL(settings, options)


def _ports(text: str) -> list[str]:
    ports = [port or "5432" for port in text.split(",")]
    if not all(port.isdecimal() and 1 <= int(port) <= 65535 for port in ports):
        raise MalformedURL(f"has a port that is no number from 1 to 65535; {_ENCODE}")
    return ports


def _normalised(url: str) -> str:
    scheme = _SCHEME.match(url)
    if scheme is None:
        if "://" in url.partition("=")[0]:
            raise MalformedURL("must begin with postgresql:// (or postgresql+<driver>://)")
        return url
    rest = url[scheme.end() :]
    if rest.count("@") > 1 or "@" in rest.partition("/")[2]:
        # libpq would take a piece of the password for a host, and later messages would show it.
        raise MalformedURL(f"has an @ that does not end the password: {_ENCODE}")
    return "postgresql://" + rest.replace(" ", "%20")  # newer versions of libpq refuse a space


def _libpq(conninfo: str) -> dict[str, str]:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    complaint = ""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except (psycopg.Error, UnicodeError) as error:
        complaint = str(error)
    # Raised outside the handler: libpq's message may quote the password, and must not stay
    # reachable as the context of ours.
    raise MalformedURL(_explain(complaint))


def _explain(complaint: str) -> str:
    parameter = re.search(r'invalid URI query parameter: "([a-z_]+)"', complaint)
    if parameter:
        hint = "; use sslmode" if parameter[1] == "ssl" else ""
        return f"has the query parameter {parameter[1]!r}, which libpq does not know{hint}"
    return f"is not a connection string that libpq understands: {_ENCODE}"


def compose(settings: Mapping[str, object], options: Mapping[str, str]) -> str:
    """Return libpq's connection string; None and empty settings are left to libpq.

    An empty password in the string would keep libpq from looking into the passfile.
    """
    from psycopg.conninfo import make_conninfo

    given = {name: settings.get(setting) for name, setting in SETTING_OF.items()}
    parameters = {name: str(value) for name, value in given.items() if value not in (None, "")}
    return make_conninfo("", **{**parameters, **options})
