-- Shared by all scripts: what a lock is without its queue.
--
-- A script is some of the files here, one after another; scripts.rs says which. It is called with
--   KEYS     three for each lock (l, q, w), then what the script says
--   ARGV[1]  floor: every new token is larger
--   ARGV[2]  retention: ms for which the last token outlives the hold, at the least
--   ARGV[3]  claim: ms of a hand-off's lease
--   ARGV[4]… what the script says
--
-- Rules that every script keeps:
--   * TIME is asked once. Everything inside is in microseconds of the server.
--   * All keys are read before the first write, with commands that refuse a key of another type.
--   * The first write is never one that a full memory refuses, where the script frees something or
--     keeps something alive: once a script has written, Redis lets it finish.
--   * Every key that is written gets a TTL.
--   * A whole number is an argument of redis.call as it is: up to 2^53 that prints every digit. In a
--     text it needs whole(), since Lua's own tostring, and with it `..`, prints 1.7900000000000e+15.

-- A call without keys teaches the server this script, and does nothing else.
if #KEYS == 0 then
  return 'taught'
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local floor, retention = tonumber(ARGV[1]), tonumber(ARGV[2])

-- The largest number up to which a double, and so Lua, counts in ones.
local LARGEST_TOKEN = 9007199254740991

-- Keeps the record of a lock for `lease` ms and its last token for longer: for the retention, and until
-- the clock is past that token. It is not while a base, or a clock that was set back, holds it behind.
local function keep(lock, lease)
  local ahead = math.floor((lock.last - now) / 1000) + 1
  redis.call('PEXPIRE', lock.l, lease + math.max(retention, ahead))
end

-- Reads a lock. Answers nil and the error when one of its keys is of another type.
-- `queueing`: the caller is going to write into the queue, unless it gets the lock.
local function open(l, q, w, queueing)
  local field = redis.pcall('HMGET', l, 'last', 'holder', 'expires', 'lease', 'provisional')
  if field.err then
    return nil, field
  end
  local depth = redis.pcall('ZCARD', q)
  if type(depth) == 'table' then
    return nil, depth
  end
  local holder = field[2]
  -- A lock that is free and has no queue needs no look at its waiters: nobody is going to be one.
  if depth > 0 or queueing and holder then
    local waiters = redis.pcall('HLEN', w)
    if type(waiters) == 'table' then
      return nil, waiters
    end
  end
  local lock = { l = l, q = q, w = w, depth = depth, last = tonumber(field[1]) or 0,
    holder = holder or nil, live = false, expires = tonumber(field[3]) or 0,
    lease = tonumber(field[4]) or 0, provisional = field[5] == '1' }
  if holder then
    -- A server's clock that was set back must not lengthen a lease. The earlier end is stored:
    -- otherwise it would be moved again at each look.
    local latest = now + lock.lease * 1000
    if lock.expires > latest then
      lock.expires = latest
      keep(lock, lock.lease)
      redis.call('HSET', l, 'expires', latest)
    end
    lock.live = lock.expires > now
  end
  return lock
end

-- Gives the lock to `nonce` for `lease` ms. `who` is what is known of its client.
local function grant(lock, nonce, who, lease, provisional)
  local token = math.max(lock.last + 1, now, floor + 1, (who.floor or 0) + 1)
  if token > LARGEST_TOKEN then
    error('fencing tokens are used up')
  end
  lock.holder, lock.last, lock.live = nonce, token, true
  lock.lease, lock.expires, lock.provisional = lease, now + lease * 1000, provisional
  redis.call('HSET', lock.l, 'last', token, 'holder', nonce, 'expires', lock.expires, 'lease', lease,
    'provisional', provisional and '1' or '0', 'since', now, 'inbox', who.inbox,
    'identity', who.identity)
  keep(lock, lease)
end

-- Forgets the holder; the last token stays for a while.
local function clear(lock)
  redis.call('HDEL', lock.l, 'holder', 'expires', 'lease', 'provisional', 'since', 'inbox', 'identity')
  keep(lock, 0)
  lock.holder, lock.live = nil, false
end

-- What the holder is told: its token, what is left (us), and whether it is to confirm a hand-off.
local function granted(lock)
  return { 'granted', lock.last, lock.expires - now, lock.provisional and 1 or 0 }
end
