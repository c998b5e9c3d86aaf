-- Ends a hold or a wait, and hands the lock on.
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

-- The waiter entry first: otherwise the lock could be handed to the very claim that gives it up.
if lock.depth > 0 or bury > 0 then
  remove(lock, nonce)
end
if bury > 0 then
  redis.call('SET', KEYS[4], '1', 'PX', whole(bury))
end
local held = lock.live and lock.holder == nonce
if held or not lock.live then
  settle(lock, nil)
end
return held and 1 or 0
