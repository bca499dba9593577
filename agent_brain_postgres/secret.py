"""References to secrets: ``secret://env/NAME``, and whatever else the running core resolves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import cast

PREFIX = "secret://"
_CORE_RESOLVER = "agent_brain_server.config.secrets"
# A reference may name a variable that holds another reference; a circle must still end.
_LONGEST_CHAIN = 5


class UnresolvedSecret(ValueError):
    """A reference leads nowhere; the message names the reference, never a value."""


def resolve_secret(value: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what `value` refers to, or `value` itself when it is no reference.

    Names are looked up in `environment` (default: the process's). References of other kinds,
    such as ``secret://gcp/...``, go to the core's resolver when the core is running.
    """
    known: Mapping[str, str] = os.environ if environment is None else environment
    for _ in range(_LONGEST_CHAIN):
        if not value.startswith(PREFIX):
            return value
        value = _follow(value, known)
    raise UnresolvedSecret("secret:// references go round in a circle")


def _follow(reference: str, environment: Mapping[str, str]) -> str:
    kind, _, name = reference.removeprefix(PREFIX).partition("/")
    if kind == "env" and name:
        found = environment.get(name)
        if not found:
            raise UnresolvedSecret(f"{reference} names an environment variable that is not set")
        return found
    return _ask_the_core(reference)


def _ask_the_core(reference: str) -> str:
    # Only a core that is already running is asked: importing it from here would be slow, and
    # would turn a settings error into an import error.
    core = sys.modules.get(_CORE_RESOLVER)
    if core is None:
        raise UnresolvedSecret(
            f"{reference} cannot be resolved here; allowed: secret://env/NAME "
            "(other kinds only inside the running Agent Brain server)"
        )
    resolve = cast("Callable[[str], str | None]", core.resolve_secret)
    failure = "it resolves to nothing"
    try:
        found = resolve(reference)
    except Exception as error:  # whatever a cloud client raises; only its kind is safe to repeat
        found, failure = None, f"Agent Brain's resolver failed with {type(error).__name__}"
    if not found:
        raise UnresolvedSecret(f"{reference}: {failure}")
    return found
