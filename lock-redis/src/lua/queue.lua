-- The queue of a lock, and how it moves. Needs lock.lua.

local claim = tonumber(ARGV[3])

-- Place renewals: the period in ms at the head of the queue, and far behind.
local PERIOD_BEHIND = 5000
-- How long a waiter's keys outlive the last lease in them, in ms.
local GRACE = 1000
-- How many entries one request sweeps at most.
local SWEEP = 8

local function whole(number)
  return string.format('%.0f', number)
end

-- A waiter's record: end of its lease (us), length of its lease, claim window, ttl (ms), token
-- floor, beginning of its wait (us), inbox, identity. No part of it contains a tab.
local function pack(who)
  return table.concat({ whole(who.ends), whole(who.lease), whole(who.window), whole(who.ttl),
    whole(who.floor), whole(who.since), who.inbox, who.identity }, '\t')
end

local function unpack_waiter(text)
  local ends, lease, window, ttl, least, since, inbox, identity =
    string.match(text, '^(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t([^\t]*)\t(.*)$')
  if not ends then
    return nil
  end
  return { ends = tonumber(ends), lease = tonumber(lease), window = tonumber(window),
    ttl = tonumber(ttl), floor = tonumber(least), since = tonumber(since), inbox = inbox,
    identity = identity }
end

local function waiter(lock, nonce)
  local text = redis.call('HGET', lock.w, nonce)
  return text and unpack_waiter(text)
end

-- Makes the script one that has written, which a full memory does not stop any more.
local function begin(lock)
  redis.call('ZREM', lock.q, '')
end

local function remove(lock, nonce)
  local before = lock.depth
  lock.depth = before - redis.call('ZREM', lock.q, nonce)
  -- Without a queue, w was not looked at and may be of any type.
  if before > 0 then
    redis.call('HDEL', lock.w, nonce)
  end
end

-- Removes a waiter whose lease has ended; answers whether it did.
local function sweep(lock, nonce)
  local who = waiter(lock, nonce)
  if who then
    local latest = now + who.lease * 1000
    if who.ends > latest then
      -- The clock was set back; see open().
      who.ends = latest
      redis.call('HSET', lock.w, nonce, pack(who))
    end
    if who.ends > now then
      return false
    end
  end
  remove(lock, nonce)
  return true
end

-- How often, in ms, a waiter at this place is to renew it: often enough that whoever misses the push of
-- its hand-off asks within `window`, for as long as the hand-off lasts.
local function period(place, window)
  local head = math.max(math.min(math.floor(window / 4), 500), 10)
  if place <= 2 then
    return head
  end
  return math.min(math.floor(head * place / 2), math.max(head, PERIOD_BEHIND))
end

-- Starts the lease of a waiter that stands in the queue again, and answers what it is told:
-- its place, the server's time, what is left of the holder's lease (us), when to ask again (ms).
local function queued(lock, nonce, who)
  local place = redis.call('ZRANK', lock.q, nonce) + 1
  local again = period(place, who.window)
  who.lease = math.max(claim, 4 * again)
  who.ends = now + who.lease * 1000
  redis.call('HSET', lock.w, nonce, pack(who))
  for _, key in ipairs({ lock.q, lock.w }) do
    if redis.call('PTTL', key) < who.lease + GRACE then
      redis.call('PEXPIRE', key, who.lease + GRACE)
    end
  end
  local left = lock.live and lock.expires - now or 0
  if place == 1 and lock.live then
    again = math.min(again, math.ceil(left / 1000) + 2)
  end
  return { 'queued', place, now, left, again }
end

-- Puts a claim at the end of the queue, or at `score`. One that stands there keeps its place.
local function enqueue(lock, nonce, who, score)
  if not redis.call('ZSCORE', lock.q, nonce) then
    while not score do
      local tail = redis.call('ZREVRANGE', lock.q, 0, 0, 'WITHSCORES')
      if not tail[1] then
        score = 1
      elseif not sweep(lock, tail[1]) then
        score = tonumber(tail[2]) + 1
      end
    end
    lock.depth = lock.depth + redis.call('ZADD', lock.q, score, nonce)
  end
  return queued(lock, nonce, who)
end

-- Hands a lock that nobody holds to the first waiter that is still there, and answers its nonce.
-- The caller's own claim is told by the reply and gets its whole TTL; another's is told by a push,
-- and has a claim window to show that it heard.
local function promote(lock, own)
  if lock.depth > 0 then
    begin(lock)
  end
  while lock.depth > 0 do
    local nonce = redis.call('ZRANGE', lock.q, 0, 0)[1]
    if not nonce then
      break
    end
    local who = waiter(lock, nonce)
    if who and nonce == own then
      grant(lock, nonce, who, who.ttl, false)
      remove(lock, nonce)
      return nonce
    elseif who and who.ends > now then
      grant(lock, nonce, who, who.window, true)
      remove(lock, nonce)
      redis.call('PUBLISH', who.inbox,
        table.concat({ 'granted', nonce, whole(lock.last), whole(lock.lease * 1000), whole(now) }, '\t'))
      return nonce
    end
    remove(lock, nonce)
  end
  return nil
end

-- For a lock without a live holder: the next waiter, or nobody. Answers who was promoted.
local function settle(lock, own)
  local heir = promote(lock, own)
  if not heir and lock.holder then
    clear(lock)
  end
  return heir
end

-- Starts the lease of the holder again.
local function extend(lock, lease, provisional)
  -- First what no full memory refuses.
  keep(lock, lease)
  lock.lease, lock.expires, lock.provisional = lease, now + lease * 1000, provisional
  redis.call('HSET', lock.l, 'expires', lock.expires, 'lease', lease,
    'provisional', provisional and '1' or '0')
end

-- What a caller is told that turns out to hold the lock. It shows by asking that it is there, so
-- the claim window of a hand-off whose push it did not get starts again.
local function found(lock)
  if lock.provisional then
    extend(lock, lock.lease, true)
  end
  return granted(lock)
end
