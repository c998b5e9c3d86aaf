-- Agrees on how names become keys.
--
-- KEYS     the namespace record
-- ARGV[4]… the layout that this client uses, how long the record stays (ms)
-- Answers  the layout that the namespace has

local stored = redis.call('GET', KEYS[1])
if not stored or stored == ARGV[4] then
  -- First what no full memory refuses: who holds a lock has to come back for it.
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
  return ARGV[4]
end
return stored
