"""A client of Redis or Valkey: standalone, Sentinel, Cluster; TLS, ACL. Nothing waits without end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

import redis.asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from gateway.settings.shared import StoreUrl

CONNECT = 1.5  # seconds to connect: with TLS, a log-in, and Sentinel asked before
_SLICES = 3
_FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)  # the second is none of the first

Word: TypeAlias = bytes | str | int | float


class Lost(Exception):
    """The store did not answer in time, or refused to. What was asked may have been done. Holds no secret."""


class Script:
    """A Lua script, sent once and then called by its digest."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Store:
    """One client of the store. It connects by itself; `Lost` is all that is raised.

    `deadline` (seconds) holds for each question, with the connection if it has to be made anew.
    """

    def __init__(self, url: StoreUrl, deadline: float = 0.075) -> None:
        self.url = url
        self.deadline = deadline
        self.sharded = url.kind == "cluster"  # the keys of one script must share a slot
        self._sentinel: Sentinel | None = None
        self._failed = False
        self._stamps = self._certificates()
        self._client: Any = self._made()

    def __repr__(self) -> str:
        return f"Store({self.url.shown})"

    def _made(self) -> Any:
        options = self._options()
        url = self.url
        if url.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in url.hosts]
            options["retry"] = Retry(NoBackoff(), 1)  # after the cluster's shape was learnt anew
            return aioredis.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
        if url.kind == "sentinel":
            given = self._sentinel_options()
            self._sentinel = Sentinel(url.hosts, sentinel_kwargs=given, **options)  # type: ignore[no-untyped-call]
            return self._sentinel.master_for(url.service, db=url.db)
        if url.kind == "unix":
            return aioredis.Redis(unix_socket_path=url.path, db=url.db, **options)
        host, port = url.hosts[0]
        return aioredis.Redis(host=host, port=port, db=url.db, **options)

    def _options(self) -> dict[str, Any]:
        url = self.url
        options: dict[str, Any] = {
            "username": url.user or None,
            "password": url.password or None,
            **self._plain(),
        }
        return options | self._tls()

    def _sentinel_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"username": self.url.sentinel_user or None}
        return options | {"password": self.url.sentinel_password or None} | self._plain() | self._tls()

    @staticmethod
    def _plain() -> dict[str, Any]:
        return {
            "socket_timeout": CONNECT,  # the deadline ends a question earlier
            "socket_connect_timeout": CONNECT,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "protocol": 2,
        }

    def _tls(self) -> dict[str, Any]:
        url = self.url
        if not url.tls:
            return {}
        files = {"ssl_ca_certs": url.ca, "ssl_certfile": url.cert, "ssl_keyfile": url.key}
        return {"ssl": True} | {name: path for name, path in files.items() if path}

    def _certificates(self) -> tuple[tuple[int, int], ...]:
        """What tells the TLS files of now from those before: inode and time of change."""
        found = []
        for path in filter(None, (self.url.ca, self.url.cert, self.url.key)):
            with suppress(OSError):
                stat = Path(path).stat()
                found.append((stat.st_ino, stat.st_mtime_ns))
        return tuple(found)

    async def _renew(self) -> None:
        """After a failure: redis-py reads TLS files once, and they may have been changed since."""
        self._failed = False
        stamps = self._certificates()
        if stamps != self._stamps:
            self._stamps = stamps
            before = self._clients()
            self._client = self._made()
            for each in before:
                await _closed(each)

    async def connect(self) -> None:
        """Ask for a sign of life; may take longer than a question. Raises `Lost`."""
        if self._failed:
            await self._renew()
        try:
            async with _Told(CONNECT):
                await self._client.ping()
        except Lost:
            self._failed = True
            raise

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """The script's answer: integers, bytes and lists of them. Raises `Lost`."""
        if self._failed:
            await self._renew()
        try:
            return await self._in_time(self._run(script, keys, args))
        except Lost:
            self._failed = True
            raise

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> Any:
        async with _Told(2 * CONNECT):
            try:
                return await self._client.evalsha(script.digest, len(keys), *keys, *args)
            except NoScriptError:
                return await self._client.eval(script.text, len(keys), *keys, *args)

    async def _in_time(self, asking: Coroutine[Any, Any, Any]) -> Any:
        """The deadline in slices: a stall of our own loop costs one of them; the store has the others."""
        task = asyncio.ensure_future(asking)
        try:
            for _ in range(_SLICES):
                done, _ = await asyncio.wait((task,), timeout=self.deadline / _SLICES)
                if done:
                    return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=CONNECT)
        raise Lost("no answer in time")

    async def publish(self, channel: str, text: str | bytes) -> None:
        """Tell everyone who listens to `channel`. Raises `Lost`."""
        async with _Told(self.deadline):
            if self.sharded:  # any server of a cluster will do
                node = await self._node()
                await node.execute_command("PUBLISH", self.named(channel), text)
            else:
                await self._client.publish(self.named(channel), text)

    def named(self, name: str) -> str:
        """A key or channel with the prefix that all of ours have."""
        return f"{self.url.prefix}:{name}"

    async def listening(self, stack: AsyncExitStack) -> Any:
        """redis-py's pub/sub object, closed with the stack. Raises `Lost`."""
        client = self._client
        async with _Told(CONNECT):
            if self.sharded:
                node = await self._node()
                client = aioredis.Redis(host=node.host, port=node.port, **self._options())
                stack.push_async_callback(_closed, client)
        listening = client.pubsub()
        stack.push_async_callback(_closed, listening)
        return listening

    async def _node(self) -> Any:
        if not self._client.get_nodes():
            await self._client.initialize()
        return self._client.get_random_node()

    async def close(self) -> None:
        """Let go."""
        for each in self._clients():
            await _closed(each)

    def _clients(self) -> list[Any]:
        return [self._client, *(self._sentinel.sentinels if self._sentinel else ())]


async def _closed(one: Any) -> None:
    with suppress(*_FAILURES):
        async with asyncio.timeout(CONNECT):
            await one.aclose()


class _Told:
    """A deadline; whatever goes wrong within it is `Lost`, in words that hold no secret."""

    __slots__ = ("_timeout",)

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Lost("no answer in time") from None
        if isinstance(error, _FAILURES):
            raise Lost(_reason(error)) from None


def _reason(error: BaseException) -> str:
    """Its kind, and the code that a server's error begins with (NOPERM, OOM, LOADING, READONLY …), or what is
    wrong with the connection or its certificate.
    """
    code = str(error).split(" ", 1)[0] if isinstance(error, ResponseError) else ""
    name = type(error).__name__
    if code.isupper() and code.isalpha():
        return f"{name} {code}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{name}: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"{name}: {cause.reason}"
        if isinstance(cause, OSError) and cause.errno:
            return f"{name}: {os.strerror(cause.errno) if cause.errno > 0 else cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return name
