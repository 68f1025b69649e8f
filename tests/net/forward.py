"""A forward proxy for tests: CONNECT tunnels and requests in absolute form (RFC 9112, 3.2.2)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

# In a request to a proxy: the absolute target's scheme and authority, and what is for the proxy alone.
_FOR_PROXY = re.compile(rb"(?<=[A-Z] )http://[^/ ]+|proxy-authorization:[^\n]*\n", re.I)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plain: bool = False) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(_FOR_PROXY.sub(b"", data) if plain else data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        url = urlsplit(b"//" + target if method == b"CONNECT" else target)
        there, back = await asyncio.open_connection(url.hostname.decode(), url.port)
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
        writer.close()
        return
    if method == b"CONNECT":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        back.write(_FOR_PROXY.sub(b"", head))
    await asyncio.gather(_pump(reader, back, method != b"CONNECT"), _pump(there, writer))


@asynccontextmanager
async def forward_proxy(seen: list[bytes] | None = None) -> AsyncIterator[str]:
    """The URL of a proxy, with a user and a password in it."""
    heads = seen if seen is not None else []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _serve(reader, writer, heads)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://user:canary-password@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
