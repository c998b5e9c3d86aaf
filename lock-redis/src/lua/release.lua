-- Ends a hold or a wait, and hands the lock on. With a queue it goes on in release_queue.lua.
--
-- KEYS     l q w, tombstone of the nonce
-- ARGV[4]… nonce, how long the tombstone stays (ms; 0: none is needed)
-- Answers  1 when the nonce held the lock until now, else 0

local nonce, bury = ARGV[4], tonumber(ARGV[5])

if bury > 0 then
  -- Only for its type.
  redis.call('GET', KEYS[4])
end
local lock, err = open(KEYS[1], KEYS[2], KEYS[3], false)
if not lock then
  return err
end
local held = lock.live and lock.holder == nonce

-- The usual case. It does not pay for the functions of the queue, which are made anew in each call.
if lock.depth == 0 and bury == 0 then
  if lock.holder and (held or not lock.live) then
    clear(lock)
  end
  return held and 1 or 0
end
