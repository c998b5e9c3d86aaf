-- One attempt, or a place in the queue.
--
-- KEYS     l q w, tombstone of the nonce
-- ARGV[4]… 'try' or 'wait', nonce, ttl (ms), inbox, identity
-- Answers  granted | busy | queued | dead

local mode, nonce = ARGV[4], ARGV[5]
local me = { ttl = tonumber(ARGV[6]), floor = floor, since = now, inbox = ARGV[7], identity = ARGV[8] }
me.window = math.min(claim, me.ttl)

-- The client has given this nonce up: this is a late copy of its request.
if redis.call('GET', KEYS[4]) then
  return { 'dead' }
end
local lock, err = open(KEYS[1], KEYS[2], KEYS[3], mode == 'wait')
if not lock then
  return err
end

if lock.live and lock.holder == nonce then
  return found(lock)
end
if not lock.live then
  -- Never the caller while somebody waits: a free lock with a queue belongs to the queue.
  if not settle(lock, nonce) then
    grant(lock, nonce, me, me.ttl, false)
  end
  if lock.holder == nonce then
    return granted(lock)
  end
end
if mode == 'try' then
  return { 'busy' }
end
return enqueue(lock, nonce, me)
