-- The rest of release.lua: somebody waits, or the nonce is to be buried.

-- The waiter entry first: otherwise the lock could be handed to the very claim that gives it up.
remove(lock, nonce)
if bury > 0 then
  redis.call('SET', KEYS[4], '1', 'PX', bury)
end
if held or not lock.live then
  settle(lock, nil)
end
return held and 1 or 0
