"""A TCP door in front of the test server that can be shut, stalled and opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Forward a loopback port to the server of `dsn`.

    `shut` drops every connection and refuses new ones; `stalled` accepts and forwards nothing.
    """

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = asyncio.Event()
        self._running.set()
        self.port = 0
        self.accepted = 0

    @property
    def dsn(self) -> str:
        """The conninfo that leads through the proxy."""
        return make_conninfo(
            **{**self._target, "host": "127.0.0.1", "port": self.port, "sslmode": "disable"}  # type: ignore[arg-type]
        )

    async def __aenter__(self) -> Proxy:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shut()

    async def open(self) -> None:
        """Listen, on the same port as before when there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse new connections and cut the ones there are, as a stopped server does."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Stop forwarding, as a dead network does."""
        self._running.clear()

    def resume(self) -> None:
        """Forward again."""
        self._running.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await self._connect()
            async with _Pair() as pair:
                pair.run(self._pump(reader, up_writer))
                pair.run(self._pump(up_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._target["host"]), self._target.get("port") or 5432
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._running.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


class _Pair:
    """Two pumps that end together."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Pair:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def run(self, pump: Coroutine[None, None, None]) -> None:
        """Start a pump."""
        self._tasks.append(asyncio.ensure_future(pump))
