"""`core.replication.EntityStore` in Redis or Valkey: one hash, the order of its changes, a counter, an era.

All keys stand in one slot. Every step is one script, so nobody sees half of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.replication import Put, StoreAway
from gateway.stores.redis.client import Lost, Script, Store, Word

CHANNEL = "entities"  # what is published here is the counter

_LOOK = Script("""
local n = tonumber(redis.call('GET', KEYS[2]) or '0')
local place = ARGV[1] == '' and n or tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1]) or '0')
return {redis.call('GET', KEYS[1]) or '', n, place}
""")

_PAGE = Script("""
local found = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local rows = {}
for i = 1, #found, 2 do
  local text = redis.call('HGET', KEYS[3], found[i])
  if text then
    rows[#rows + 1] = {tonumber(found[i + 1]), found[i], text}
  end
end
return rows
""")

# ARGV: era and counter that the writer has seen, an era to take, the channel, then name, seen, text for each.
_PUT = Script("""
local era = redis.call('GET', KEYS[1])
local n = tonumber(redis.call('GET', KEYS[2]) or '0')
if not era or (era == ARGV[1] and n < tonumber(ARGV[2])) then
  era = ARGV[3]
  redis.call('SET', KEYS[1], era)
end
if ARGV[1] ~= '' and ARGV[1] ~= era then
  return {era}
end
local answer, written = {era}, false
for i = 5, #ARGV, 3 do
  local name, seen, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local there = redis.call('HGET', KEYS[3], name)
  if there == text then
    answer[#answer + 1] = 1
  elseif (there and redis.sha1hex(there) or '') == seen and text == '' then
    redis.call('HDEL', KEYS[3], name)
    redis.call('ZREM', KEYS[4], name)
    answer[#answer + 1] = 1
  elseif (there and redis.sha1hex(there) or '') == seen then
    redis.call('HSET', KEYS[3], name, text)
    redis.call('ZADD', KEYS[4], redis.call('INCR', KEYS[2]), name)
    answer[#answer + 1] = 1
    written = true
  else
    answer[#answer + 1] = there or ''
  end
end
if written then
  redis.call('PUBLISH', ARGV[4], redis.call('GET', KEYS[2]))
end
return answer
""")

_HOLD = Script("return redis.call('SET', KEYS[5], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0")
_RELEASE = Script("if redis.call('GET', KEYS[5]) == ARGV[1] then redis.call('DEL', KEYS[5]) end return 1")


class Entities:
    """Implements `core.replication.EntityStore`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = [store.named(f"{{entities}}:{name}") for name in ("era", "n", "texts", "order", "turn")]

    async def _run(self, script: Script, *args: Word) -> Any:
        try:
            return await self._store.run(script, self._keys, args)
        except Lost as error:
            raise StoreAway(str(error)) from None

    async def look(self, mark: str) -> tuple[str, int, int]:
        """The era, the counter, the place of `mark`; see `core.replication.EntityStore`."""
        era, n, place = await self._run(_LOOK, mark)
        return era.decode(), int(n), int(place)

    async def page(self, after: int, most: int) -> list[tuple[int, str, bytes]]:
        """What was written after this place of the counter, in order: place, name, text."""
        rows = await self._run(_PAGE, after, most)
        return [(int(n), name.decode("utf-8", "replace"), text) for n, name, text in rows]

    async def put(self, era: str, n: int, fresh: str, puts: Sequence[Put]) -> tuple[str, list[bytes | None]]:
        """Write, and tell everybody; see `core.replication.EntityStore`."""
        words = [word for put in puts for word in put]
        era_now, *there = await self._run(_PUT, era, n, fresh, self._store.named(CHANNEL), *words)
        return era_now.decode(), [None if each == 1 else each for each in there]

    async def hold(self, token: str, ms: int) -> bool:
        """Take the turn, for at most so long; False while somebody else has it."""
        return bool(await self._run(_HOLD, token, ms))

    async def release(self, token: str) -> None:
        """Give it back, if it is still ours."""
        await self._run(_RELEASE, token)
