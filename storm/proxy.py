"""A TCP proxy that can be slow: what comes in at either end leaves at the other after a delay that may change."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

_CHUNK = 65_536


class Proxy:
    """Stands before one server of this machine, on a port of its own."""

    def __init__(self, target: int = 0) -> None:
        self.port = 0
        self.target = target
        """The port of the server; it may be set when that has started."""
        self.delay = 0.0
        """Seconds by which every byte is late, in each direction."""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # Nobody there: the caller's connection ends, as it would without us. Who is cancelled is closed with us.
            with suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
                ways = [self._carry(reader, far_writer), self._carry(far_reader, writer)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in tasks:
                        way.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    far_writer.close()
        finally:
            writer.close()
            self._connections.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one end closes. What has come waits in a queue, so that a delay holds nothing back longer than once."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            with suppress(OSError):  # broken off is an end, too
                while chunk := await reader.read(_CHUNK):
                    waiting.put_nowait((time.monotonic() + self.delay, chunk))
            waiting.put_nowait((time.monotonic() + self.delay, b""))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                at, chunk = await waiting.get()
                if (left := at - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
