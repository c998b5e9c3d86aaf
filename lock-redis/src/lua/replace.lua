-- Gives the place of a waiting claim to another one of the same client.
--
-- KEYS     l q w, tombstone of the old nonce, tombstone of the next nonce
-- ARGV[4]… old nonce, how long its tombstone stays (ms), next nonce, ttl (ms), inbox, identity
-- Answers  granted | queued | gone | dead

local old, bury, nonce = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local me = { ttl = tonumber(ARGV[7]), floor = floor, since = now, inbox = ARGV[8], identity = ARGV[9] }
me.window = math.min(claim, me.ttl)

local dead = redis.call('GET', KEYS[5])
redis.call('GET', KEYS[4])
local lock, err = open(KEYS[1], KEYS[2], KEYS[3], true)
if not lock then
  return err
end

local score = redis.call('ZSCORE', lock.q, old)
remove(lock, old)
-- Always: the old nonce's own request may still be under way.
redis.call('SET', KEYS[4], '1', 'PX', bury)

local holds = lock.live and lock.holder == old
if holds and not dead then
  -- The hand-off came first. The hold of the old nonce ends here, so the token is a new one.
  grant(lock, nonce, me, me.ttl, false)
  return granted(lock)
end
if dead or not (holds or score) then
  if holds or not lock.live then
    settle(lock, nil)
  end
  return { dead and 'dead' or 'gone' }
end
local answer = enqueue(lock, nonce, me, tonumber(score))
if lock.live then
  return answer
end
if settle(lock, nonce) == nonce then
  return granted(lock)
end
return queued(lock, nonce, me)
