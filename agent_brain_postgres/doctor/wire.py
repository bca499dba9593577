"""A look at a port before any login: does PostgreSQL listen there, and does it speak TLS?"""

from __future__ import annotations

import asyncio
from typing import Literal

# The request code that asks a PostgreSQL server for TLS; it answers with one letter.
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")

Speaker = Literal["tls", "plain", "other", "silent"]


async def speaker(host: str, port: int, timeout: float) -> Speaker:
    """Tell what listens: PostgreSQL with TLS, PostgreSQL without, something else, or who knows.

    Raises `OSError` when nothing does, `TimeoutError` when packets vanish.
    """
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
    try:
        writer.write(_SSL_REQUEST)
        answer = await asyncio.wait_for(reader.read(1), timeout)
    except asyncio.TimeoutError:
        return "silent"
    except OSError:
        return "other"
    finally:
        writer.close()
    if answer == b"S":
        return "tls"
    return "plain" if answer == b"N" else "other"


async def socket_speaker(path: str, timeout: float) -> Speaker:
    """Tell the same of a Unix socket, where TLS is never used."""
    _, writer = await asyncio.wait_for(asyncio.open_unix_connection(path), timeout)
    writer.close()
    return "plain"
