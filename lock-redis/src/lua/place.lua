-- Renews places in queues, and notices holders whose lease has ended. Many locks of one partition.
--
-- KEYS     l q w of each lock
-- ARGV[4]… nonce of each lock
-- Answers  for each lock granted | queued | gone | foreign

local function look(lock, nonce)
  if lock.live and lock.holder == nonce then
    return found(lock)
  end
  if not lock.live and settle(lock, nonce) == nonce then
    return granted(lock)
  end
  local rank = redis.call('ZRANK', lock.q, nonce)
  local me = rank and waiter(lock, nonce)
  if not me then
    return { 'gone' }
  end
  begin(lock)
  -- Who died in front of us is removed now, not when the lock comes to it.
  if rank > 0 then
    for _, ahead in ipairs(redis.call('ZRANGE', lock.q, math.max(rank - SWEEP, 0), rank - 1)) do
      sweep(lock, ahead)
    end
  end
  me.floor = math.max(me.floor, floor)
  return queued(lock, nonce, me)
end

local answers = {}
for i = 1, #KEYS / 3 do
  local lock = open(KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i], true)
  answers[i] = lock and look(lock, ARGV[i + 3]) or { 'foreign' }
end
return answers
