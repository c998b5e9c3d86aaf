-- One attempt, or a place in the queue. With somebody in the way it goes on in acquire_queue.lua.
--
-- KEYS     l q w, tombstone of the nonce
-- ARGV[4]… 'try' or 'wait', nonce, ttl (ms), inbox, identity
-- Answers  granted | busy | queued | dead

local mode, nonce = ARGV[4], ARGV[5]
local me = { ttl = tonumber(ARGV[6]), floor = floor, since = now, inbox = ARGV[7], identity = ARGV[8] }

-- The client has given this nonce up: this is a late copy of its request.
if redis.call('GET', KEYS[4]) then
  return { 'dead' }
end
local lock, err = open(KEYS[1], KEYS[2], KEYS[3], mode == 'wait')
if not lock then
  return err
end

-- The usual case. It does not pay for the functions of the queue, which are made anew in each call.
if not lock.live and lock.depth == 0 then
  -- A dead holder makes room for the next one, also in a full memory.
  if lock.holder then
    clear(lock)
  end
  grant(lock, nonce, me, me.ttl, false)
  return granted(lock)
end
