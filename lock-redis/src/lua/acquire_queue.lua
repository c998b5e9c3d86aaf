-- The rest of acquire.lua: the lock is held, or somebody waits for it.

me.window = math.min(claim, me.ttl)

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
