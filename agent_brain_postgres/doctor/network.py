"""Checks on the way to the server: name, port, TLS, login."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from pathlib import Path

from agent_brain_postgres.deploy import env_file, ports
from agent_brain_postgres.doctor import wire
from agent_brain_postgres.doctor.case import Case
from agent_brain_postgres.doctor.finding import Finding, failed, ok, warning
from agent_brain_postgres.errors import StorageError, connection_failed

PATIENCE = 3.0  # seconds for one answer


async def dns(case: Case) -> list[Finding]:
    """Resolve every host."""
    seen: list[str] = []
    for host, port in case.settings.addresses():
        if _is_socket(host):
            seen.append(f"{host} is a Unix socket's directory")
            continue
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            source = case.settings.sources["host"]
            return [failed("dns", f"the name {host!r} does not resolve ({source})", "correct host")]
        seen.append(f"{host} is {', '.join(dict.fromkeys(str(a[4][0]) for a in found))}")
    return [ok("dns", "; ".join(seen))]


async def tcp(case: Case) -> list[Finding]:
    """Connect to the port, and see whether PostgreSQL listens there."""
    problems: list[Finding] = []
    for host, port in case.settings.addresses():
        problem = await _reach(case, host, port)
        if problem is None:
            # libpq takes the first host that answers, so the others are not fatal.
            unused = [warning(p.check, p.seen, p.mend) for p in problems]
            return [*unused, ok("tcp", f"PostgreSQL listens on {_place(host, port)}")]
        problems.append(problem)
    return problems


async def _reach(case: Case, host: str, port: int) -> Finding | None:
    place = _place(host, port)
    try:
        if _is_socket(host):
            await wire.socket_speaker(_socket_path(host, port), PATIENCE)
            return None
        spoken = await wire.speaker(host, port, PATIENCE)
    except (TimeoutError, asyncio.TimeoutError):
        seen = f"{place} does not answer within {PATIENCE:.0f} s: a firewall, or a wrong host"
        return failed("tcp", seen, "correct host and port, or open the firewall")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return await _nobody(case, host, port, reason)
    if spoken == "other":
        elsewhere = await _elsewhere(case, host, port)
        seen = f"what listens on {place} is not PostgreSQL{_answers(elsewhere)}: wrong port"
        return failed("tcp", seen, _correct_port(elsewhere))
    if spoken == "silent":
        seen = f"{place} takes connections but does not answer: PostgreSQL hangs, or wrong port"
        restart = case.compose("restart") or "restart PostgreSQL, or correct port"
        return failed("tcp", seen, restart)
    return None


async def _nobody(case: Case, host: str, port: int, reason: str) -> Finding:
    place = _place(host, port)
    elsewhere = None if _is_socket(host) else await _elsewhere(case, host, port)
    if elsewhere is not None:
        seen = f"nothing listens on {place}{_answers(elsewhere)}: wrong port"
        return failed("tcp", seen, _correct_port(elsewhere))
    seen = f"no server: nothing listens on {place} ({reason})"
    mend = case.compose("up --detach --wait") or f"start PostgreSQL on {place}, or correct host"
    return failed("tcp", seen, mend)


def _answers(port: int | None) -> str:
    return f", but PostgreSQL answers on port {port}" if port is not None else ""


def _correct_port(port: int | None) -> str:
    return f"export AGENT_BRAIN_POSTGRES_PORT={port}" if port is not None else "correct port"


async def _elsewhere(case: Case, host: str, port: int) -> int | None:
    """Find PostgreSQL on another port of this machine; of others' machines none is scanned."""
    if not case.is_local:
        return None
    for candidate in _candidates(case):
        if candidate == port:
            continue
        try:
            if await wire.speaker(host, candidate, 0.5) in ("tls", "plain"):
                return candidate
        except (OSError, asyncio.TimeoutError):
            continue
    return None


def _candidates(case: Case) -> list[int]:
    found: list[int] = []
    try:
        if case.places.env_file is not None:
            port = env_file.values(case.places.env_file).get("POSTGRES_PORT", "")
            found += [int(port)] if port.isdecimal() else []
        if case.places.state_directory is not None:
            owner = case.places.state_directory.resolve()
            found += [n for n, holder in ports.reserved().items() if holder == owner]
    except StorageError:
        pass  # Only a place to look for hints.
    return [*dict.fromkeys([*found, *ports.PREFERRED])]


async def tls(case: Case) -> list[Finding]:
    """Connect, and see whether encryption is what settings and server ask for."""
    await case.connect()
    mode = case.settings.ssl_mode or "prefer"
    if case.error is not None:
        problem = _tls_problem(str(case.error), mode)
        return [problem] if problem else [ok("tls", f"ssl_mode {mode}: no objection")]
    if case.database.pgconn.ssl_in_use:
        return [ok("tls", f"encrypted (ssl_mode {mode}{_verified(mode)})")]
    if case.is_local:
        return [ok("tls", "not encrypted; the server is on this machine")]
    return [
        warning(
            "tls",
            f"not encrypted (ssl_mode {mode}), and the server is not on this machine",
            "set ssl_mode: verify-full and ssl_root_cert, and turn TLS on at the server",
        )
    ]


def _verified(mode: str) -> str:
    return ", certificate verified" if mode.startswith("verify") else ", certificate not verified"


def _tls_problem(text: str, mode: str) -> Finding | None:
    if "no encryption" in text and "pg_hba" in text:
        seen = f"TLS is required by the server, but ssl_mode is {mode}"
        return failed("tls", seen, "export AGENT_BRAIN_POSTGRES_SSL_MODE=require")
    if "does not support SSL" in text:
        seen = f"ssl_mode is {mode}, but the server has no TLS"
        return failed("tls", seen, "turn TLS on at the server (ssl = on), or set ssl_mode: prefer")
    if "root certificate file" in text:
        seen = f"certificate not trusted: {_reason(text, 'root certificate file')}"
        return failed("tls", seen, "export AGENT_BRAIN_POSTGRES_SSL_ROOT_CERT=/path/to/ca.crt")
    if "certificate verify failed" in text:
        seen = "certificate not trusted: no known authority signed it"
        return failed("tls", seen, "export AGENT_BRAIN_POSTGRES_SSL_ROOT_CERT=/path/to/ca.crt")
    if "certificate" in text or "SSL error" in text or "SSL negotiation" in text:
        return failed("tls", _one_line(text), "correct ssl_mode, ssl_root_cert, ssl_cert, ssl_key")
    return None


async def authentication(case: Case) -> list[Finding]:
    """Log in: user, password and database."""
    config = case.settings
    if case.error is None:
        return [ok("authentication", f"user {config.user!r} on database {config.database!r}")]
    return [_refused(case, str(case.error))]


def _refused(case: Case, text: str) -> Finding:
    config, check = case.settings, "authentication"
    server = _server_options(case)
    if "password authentication failed" in text or "no password supplied" in text:
        source = config.sources["password"]
        what = "wrong password" if config.password else "no password"
        seen = f"{what} for user {config.user!r} (password from {source}), or no such user"
        change = rf"exec postgres psql --username {config.user} --dbname {config.database} " + (
            r"--command '\password'"
        )
        return failed(check, seen, case.compose(change) or _give_password(case))
    if re.search(r'database "[^"]*" does not exist', text):
        seen = f"the database {config.database!r} does not exist"
        owner = f"--owner {config.user} " if config.user else ""
        return failed(check, seen, f"createdb {server} {owner}{config.database}")
    if re.search(r'role "[^"]*" does not exist', text):
        seen = f"the user {config.user!r} does not exist"
        return failed(check, seen, f"createuser {server} --pwprompt {config.user}")
    if "too many clients" in text or "remaining connection slots" in text:
        seen = "the server has no connection left"
        return failed(check, seen, "lower pool_max of its users, or raise max_connections")
    if "pg_hba.conf" in text:
        seen = f"pg_hba.conf of the server does not admit user {config.user!r} from here"
        return failed(check, seen, "add a line for this user and address to pg_hba.conf, reload")
    if "the database system is" in text:
        return failed(check, "the server is starting up or shutting down", "wait, and try again")
    explained = connection_failed(Exception(text), f"{config.host}:{config.port}")
    return failed(check, explained.message, "see the server's log")


def _give_password(case: Case) -> str:
    if case.places.env_file is not None:
        return f"correct AGENT_BRAIN_POSTGRES_PASSWORD in {case.places.env_file}"
    return "export AGENT_BRAIN_POSTGRES_PASSWORD=..."


def _server_options(case: Case) -> str:
    host, port = case.settings.addresses()[0]
    return f"--host {host} --port {port} --username postgres"


def _reason(text: str, start: str) -> str:
    return start + _one_line(text.partition(start)[2].partition("\n")[0]).rstrip(". ")


def _one_line(text: str) -> str:
    return " " + " ".join(text.split()) if text.startswith(" ") else " ".join(text.split())


def _is_socket(host: str) -> bool:
    return host.startswith(("/", "@"))


def _socket_path(host: str, port: int) -> str:
    return str(Path(host) / f".s.PGSQL.{port}")


def _place(host: str, port: int) -> str:
    return _socket_path(host, port) if _is_socket(host) else f"{host}:{port}"
