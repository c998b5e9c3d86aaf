-- Takes the lock from the holder that has exactly this token, and tells it.
--
-- KEYS     l q w
-- ARGV[4]  token
-- Answers  1 when it was held with this token, else 0

local lock, err = open(KEYS[1], KEYS[2], KEYS[3], false)
if not lock then
  return err
end

local broken = 0
if lock.live and lock.last == tonumber(ARGV[4]) then
  -- A server that refuses to write must not tell the holder of a break that it refused.
  begin(lock)
  local inbox = redis.call('HGET', lock.l, 'inbox')
  redis.call('PUBLISH', inbox, table.concat({ 'broken', lock.holder, whole(lock.last) }, '\t'))
  lock.live = false
  broken = 1
end
if not lock.live then
  settle(lock, nil)
end
return broken
