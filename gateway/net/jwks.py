"""Fetching an identity provider's public keys: one GET, bounded in time and size, without redirects."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from gateway.core.codec import JSONError, loads
from gateway.net.egress import tls_context
from gateway.net.jwt import usable

DEADLINE = 5.0  # seconds in all
LARGEST = 256 * 1024  # bytes
MOST_KEYS = 100


class NoKeys(Exception):
    """The key set can't be had; the message says why and holds nothing secret."""


async def fetch(url: str, ca: str = "") -> list[dict[str, Any]]:
    """The usable public keys at `url`. Raises `NoKeys`."""
    try:
        async with asyncio.timeout(DEADLINE):
            found = usable(loads(await _document(url, ca)))
    except TimeoutError:
        raise NoKeys(f"no answer within {DEADLINE:g} s") from None
    except httpx.HTTPError as error:
        raise NoKeys(f"{type(error).__name__}: {error}"[:200]) from None
    except JSONError:
        raise NoKeys("the answer is not JSON") from None
    except ValueError as error:
        raise NoKeys(str(error)[:200]) from None
    if not found:
        raise NoKeys("the key set has no key that can be used")
    if len(found) > MOST_KEYS:
        raise NoKeys(f"the key set has more than {MOST_KEYS} keys")
    return found


async def _document(url: str, ca: str) -> bytes:
    async with (
        httpx.AsyncClient(verify=tls_context(ca), trust_env=False, timeout=DEADLINE) as client,
        client.stream("GET", url, headers={"accept": "application/json"}) as answer,
    ):
        if answer.status_code != 200:
            raise NoKeys(f"status {answer.status_code}")
        data = b""
        async for piece in answer.aiter_bytes():
            data += piece
            if len(data) > LARGEST:
                raise NoKeys(f"the answer is larger than {LARGEST >> 10} KiB")
        return data
