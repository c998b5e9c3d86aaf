-- Releases a hold and puts another claim of the same client at the end of the queue.
--
-- KEYS     l q w, tombstone of the next nonce, tombstone of the held nonce
-- ARGV[4]… held nonce, how long its tombstone stays (ms; 0: none is needed), next nonce, ttl (ms),
--          inbox, identity
-- Answers  1 or 0 as a release does, then granted | queued | dead

local old, bury, nonce = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local me = { ttl = tonumber(ARGV[7]), floor = floor, since = now, inbox = ARGV[8], identity = ARGV[9] }
me.window = math.min(claim, me.ttl)

local dead = redis.call('GET', KEYS[4])
if bury > 0 then
  redis.call('GET', KEYS[5])
end
local lock, err = open(KEYS[1], KEYS[2], KEYS[3], true)
if not lock then
  return err
end

remove(lock, old)
if bury > 0 then
  redis.call('SET', KEYS[5], '1', 'PX', bury)
end
local held = lock.live and lock.holder == old
local released = held and 1 or 0
if held or not lock.live then
  if not dead and lock.depth == 0 then
    grant(lock, nonce, me, me.ttl, false)
    return { released, granted(lock) }
  end
  settle(lock, nonce)
end
if dead then
  return { released, { 'dead' } }
end
if lock.live and lock.holder == nonce then
  return { released, granted(lock) }
end
if not lock.live then
  -- Everybody in the queue was gone.
  grant(lock, nonce, me, me.ttl, false)
  return { released, granted(lock) }
end
return { released, enqueue(lock, nonce, me) }
