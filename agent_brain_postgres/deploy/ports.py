"""Ports for databases on this machine: free, and promised to no other project of this user.

A port that is free now may belong to a project whose container is stopped. So each chosen port is
kept in a register of this user, `ports.json`, which is read and written under a lock. An entry
counts as long as the project's environment file names that port.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent_brain_postgres.deploy import env_file, files
from agent_brain_postgres.deploy.locks import locked, user_directory
from agent_brain_postgres.errors import DeployError

logger = logging.getLogger(__name__)

PREFERRED = range(5432, 5443)
# An entry counts this long (seconds) before its environment file is written.
GRACE = 900.0

_Register = dict[int, tuple[Path, float]]


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of 127.0.0.1, by trying it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform == "linux":
            # Connections that just ended do not count; a listener still does. Elsewhere the
            # option would let us in beside a listener on all interfaces.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def reserve(state_dir: Path, port: int | None = None) -> int:
    """Choose a port for a project and keep it from the user's other projects.

    Without `port`: the first free one of 5432-5442, else any. Raises `DeployError` when the
    wanted port is taken, saying by whom.
    """
    owner = state_dir.resolve()
    with locked("ports"):
        register = _pruned(_read())
        others = {number for number, (holder, _) in register.items() if holder != owner}
        chosen = _first_free(others) if port is None else _wanted(port, register, owner)
        for number in [n for n, (holder, _) in register.items() if holder == owner]:
            del register[number]
        register[chosen] = (owner, time.time())
        _write(register)
    return chosen


def keep(state_dir: Path, port: int) -> None:
    """Enter the port that a project already uses; its own server may be listening there."""
    owner = state_dir.resolve()
    with locked("ports"):
        register = _pruned(_read())
        holder = register.get(port, (owner, 0.0))[0]
        if holder != owner:
            logger.warning("port %d is also reserved for %s", port, holder)
            return
        register[port] = (owner, time.time())
        _write(register)


def release(state_dir: Path) -> None:
    """Give up whatever port is reserved for a project."""
    owner = state_dir.resolve()
    with locked("ports"):
        _write({n: entry for n, entry in _pruned(_read()).items() if entry[0] != owner})


def reserved() -> dict[int, Path]:
    """List the reserved ports and the state directories that they are for."""
    with locked("ports"):
        return {port: owner for port, (owner, _) in _pruned(_read()).items()}


def _wanted(port: int, register: _Register, owner: Path) -> int:
    if not 1 <= port <= 65535:
        raise DeployError(f"port {port}: a port lies between 1 and 65535")
    holder = register.get(port)
    if holder is not None and holder[0] != owner:
        raise DeployError(
            f"port {port} is reserved for the project in {holder[0]}: choose another, or "
            "--port auto"
        )
    if not is_free(port):
        raise DeployError(
            f"port {port} is in use by another process: choose another, or --port auto"
        )
    return port


def _first_free(taken: set[int]) -> int:
    for port in PREFERRED:
        if port not in taken and is_free(port):
            return port
    for port in _any_ports():
        if port not in taken:
            return port
    raise DeployError("this machine has no free port left")


def _any_ports() -> Iterator[int]:
    """Let the system name free ports; each is another one while the earlier ones are held."""
    probes: list[socket.socket] = []
    try:
        for _ in range(256):
            probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            probes.append(probe)
            probe.bind(("127.0.0.1", 0))
            yield int(probe.getsockname()[1])
    finally:
        for probe in probes:
            probe.close()


def _path() -> Path:
    return user_directory() / "ports.json"


def _read() -> _Register:
    file = files.read(_path())
    if file is None:
        return {}
    try:
        entries = json.loads(file.text)["ports"]
        return {int(port): (Path(entry[0]), float(entry[1])) for port, entry in entries.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        logger.warning("%s is damaged and is started anew", _path())
        return {}


def _write(register: _Register) -> None:
    entries = {str(n): [str(owner), since] for n, (owner, since) in sorted(register.items())}
    text = json.dumps({"ports": entries}, indent=2) + "\n"
    files.write(_path(), files.TextFile(text), files.PRIVATE)


def _pruned(register: _Register) -> _Register:
    return {n: entry for n, entry in register.items() if _counts(n, *entry)}


def _counts(port: int, owner: Path, since: float) -> bool:
    if 0 <= time.time() - since < GRACE:
        return True
    try:
        return env_file.values(owner / env_file.NAME).get("POSTGRES_PORT") == str(port)
    except DeployError:
        return True  # Unreadable just now: better a port too many than a clash.
