"""The script that keeps limits in the store: one call decides a whole batch, by the server's own clock."""

from __future__ import annotations

from gateway.stores.redis.client import Script

# KEYS: the epoch, then one bucket each. ARGV: the head and a list of questions, as JSON.
#
# A bucket is one string, packed: what was used (rolling: `w`, slices of a 60th of the window with their
# amounts; GCRA: `v`, a level of nanoseconds at `t`; calendar: `p`, the start of the period, and `u`), and in
# `r`, per
# replica, what it has told: `b` its life, `q` the last question, `u` what it has used in all, `l` its lease,
# `x` when that ends, `a` when it told, `d` until when it has nothing unused. `o` are leases of replicas'
# former lives. `n` is the replica in want since ticket `y` (of `m`, told at `z`), `c` until when units are
# given for what is needed alone. Times are microseconds of the server.
LEASES = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local head = cjson.decode(ARGV[1])
if now > head.void then return {'late', now} end
if redis.call('GET', KEYS[1]) ~= head.epoch then return {'epoch', now} end

local function current(s, k)
  if k.kind == 'roll' then
    local w = s.w or {}
    local index = math.floor(now / k.slice)
    if #w > 0 and w[#w - 1] > index then index = w[#w - 1] end
    local keep, sum = {}, 0
    for i = 1, #w, 2 do
      if w[i] >= index - 60 then
        keep[#keep + 1] = w[i]
        keep[#keep + 1] = w[i + 1]
        sum = sum + w[i + 1]
      end
    end
    s.w, s.i, s.u = keep, index, sum
  elseif k.kind == 'gcra' then
    local at = math.max(now, s.t or 0)
    local level = math.max((s.v or 0) - (at - (s.t or at)) * 1000, 0)
    if s.k and s.k ~= k.step then level = math.ceil(level / s.k * k.step) end
    s.v, s.t, s.k = level, at, k.step
    s.u = math.ceil(level / k.step)
  elseif k.kind == 'calendar' then
    local start
    for i = 1, 3 do
      if k.period[i] <= now and now < k.period[i + 1] then start, k.ends = k.period[i], k.period[i + 1] end
    end
    if not start then return false end
    if not s.p or s.p < start then s.p, s.u = start, 0 end
  else
    s.u = 0
  end
  return true
end

local function charge(s, k, amount, ago)
  if k.kind == 'roll' then
    local w = s.w
    local index = math.min(math.floor((now - ago) / k.slice), s.i)
    if index < s.i - 60 then return end
    local i = 1
    while i <= #w and w[i] < index do i = i + 2 end
    if w[i] == index then
      w[i + 1] = w[i + 1] + amount
    else
      table.insert(w, i, index)
      table.insert(w, i + 1, amount)
    end
    s.u = s.u + amount
  elseif k.kind == 'gcra' then
    s.v = s.v + amount * k.step
    if ago > 0 or k.seeding then s.v = math.min(s.v, k.cap * k.step) end
    s.u = math.ceil(s.v / k.step)
  elseif k.kind == 'calendar' then
    s.u = s.u + amount
  end
end

-- Microseconds until the window alone makes room for `need`; -1: never.
local function retry(s, k, need)
  if need > k.cap then return -1 end
  if k.kind == 'roll' then
    local missing = need - (k.cap - s.u)
    if missing <= 0 then return 0 end
    for i = 1, #s.w, 2 do
      missing = missing - s.w[i + 1]
      if missing <= 0 then return math.max((s.w[i] + 61) * k.slice - now, 1) end
    end
  elseif k.kind == 'gcra' then
    local over = s.v - (k.cap - need) * k.step
    return over > 0 and math.ceil(over / 1000) + s.t - now or 0
  elseif k.kind == 'calendar' then
    return s.u + need <= k.cap and 0 or k.ends - now
  end
  return 1000000
end

local function whole(s, k)
  if k.kind == 'roll' then return #s.w > 0 and (s.w[#s.w - 1] + 61) * k.slice - now or 0 end
  if k.kind == 'gcra' then return math.ceil(s.v / 1000) end
  if k.kind == 'calendar' then return k.ends - now end
  return 1000000
end

-- What others have: on lease, how many of them may have something unused; and forget who is long gone.
local function others(s, k)
  local leased, idle = 0, 0
  for id, r in pairs(s.r) do
    if id ~= head.id then
      if r.x > now then
        leased = leased + r.l
        if r.l > 0 and r.d <= now then idle = idle + 1 end
      elseif now - r.a > k.keep then
        s.r[id] = nil
      end
    end
  end
  for id, o in pairs(s.o) do
    if o.x > now then leased = leased + o.l elseif now - o.a > k.keep then s.o[id] = nil end
  end
  return leased, idle
end

local function tell(what, k, ...)
  redis.call('PUBLISH', head.channel, cjson.encode({what, k.name, head.id, ...}))
end

local function one(key, k)
  local raw = redis.call('GET', key)
  local s = raw and cmsgpack.unpack(raw) or {}
  s.r, s.o = s.r or {}, s.o or {}
  local me = s.r[head.id]
  if not me and k.met then return {'unknown'} end
  if not current(s, k) then return {'period'} end
  local had = me and me.x > now and me.l or 0
  if me and me.b ~= k.boot then
    if me.l > 0 then
      local o = s.o[head.id]
      s.o[head.id] = {l = me.l + (o and o.l or 0), a = o and math.min(o.a, me.a) or me.a, x = me.x}
    end
    me = {b = k.boot, q = 0, u = 0, l = 0}
    had = 0
  elseif not me then
    me = {b = k.boot, q = 0, u = k.base, l = 0}
    if k.seed then
      k.seeding = true
      for _, part in ipairs(k.seed) do charge(s, k, part[2], part[1] * 1000000) end
      k.seeding = false
      me.u = k.used
    end
  end
  if k.seq <= me.q then return {'stale'} end
  local o = s.o[head.id]
  if k.adopt and o then
    charge(s, k, math.min(k.adopt, o.l), 0)
    s.o[head.id], o = nil, nil
  end
  local fresh = math.max(k.used - me.u, 0)
  if fresh > 0 then charge(s, k, fresh, 0) end
  me.u, me.q = math.max(k.used, me.u), k.seq
  local back = had - k.lease - fresh
  local leased, idle = others(s, k)
  local room = k.cap - s.u - leased - k.lease
  local granted, short = 0, false
  local rival = s.c and s.c > now and s.n ~= head.id
  -- Another replica's call that waits for longer goes first.
  local first = rival and s.y and now - s.z < 150000 and s.y
  if k.need then
    local mine = room
    if first and first < k.ticket then mine = room - s.m end
    if mine >= k.need then granted = math.min(k.all, mine) else short = true end
    if granted > 0 and s.n == head.id then s.y = nil end
  end
  if k.want and not short and not rival and room > granted then
    granted = granted + math.min(k.want, math.floor((room - granted) / (2 * head.replicas)))
  end
  room = room - granted
  me.l, me.a, me.x = k.lease + granted, now, now + head.lease
  me.d = k.dry and now + k.dry * 1000000 or 0
  s.r[head.id] = me
  local wait = 0
  if short then
    s.c = now + 1500000
    if not first or k.ticket < first then s.n, s.y, s.m, s.z = head.id, k.ticket, k.need, now end
    if idle > 0 and k.recall then tell('recall', k, k.ticket) end
    wait = retry(s, k, k.need + leased + k.lease)
    if wait < 0 then
      wait = retry(s, k, k.need)
      if wait < 0 then wait = whole(s, k) end
      wait = math.max(wait, 1000000)
    end
  elseif back > 0 and room > 0 and s.c and s.c > now then
    tell('room', k, room)
  end
  -- What is worth telling: once in a window, by one replica.
  local near, reached = 0, 0
  if k.warn and k.kind ~= 'none' then
    if s.u < k.warn then
      if s.u < k.warn * 0.9 then s.f = nil end
    elseif not s.f and (s.g or 0) <= now then
      s.f, s.g, near = 1, k.ends or now + k.keep, 1
    end
  end
  if short and idle == 0 and (s.h or 0) <= now then s.h, reached = k.ends or now + k.keep, 1 end
  local stay = (k.kind == 'calendar' and k.ends - now or k.keep) + head.lease + 60000000
  redis.call('SET', key, cmsgpack.pack(s), 'PX', math.ceil(stay / 1000))
  return {'ok', granted, room, wait, idle, s.u, near, reached, o and o.l or 0, o and o.a or 0}
end

local out = {}
for i, k in ipairs(cjson.decode(ARGV[2])) do out[i] = one(KEYS[i + 1], k) end
return {'ok', now, out}
""")

# KEYS: the epoch, the set of replicas. ARGV: a new epoch's name, its grace in microseconds, this replica, for
# how long another counts as there, and whether to leave. An epoch is what a store has counted since it was
# empty: in its first moments all replicas tell what they have used, and nobody gets anything.
HELLO = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[1] .. ' ' .. string.format('%.0f', now + ARGV[2])
  redis.call('SET', KEYS[1], epoch)
end
if ARGV[5] == '1' then
  redis.call('ZREM', KEYS[2], ARGV[3])
else
  redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[3])
  redis.call('PEXPIRE', KEYS[2], 86400000)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - ARGV[4]))
return {now, epoch, redis.call('ZCARD', KEYS[2])}
""")
