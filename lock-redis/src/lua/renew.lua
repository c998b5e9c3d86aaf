-- Makes leases whole. Many locks of one partition, each judged alone.
--
-- KEYS     l q w of each lock
-- ARGV[4]… nonce, ttl (ms) of each lock
-- Answers  for each lock what is left (us); 0: the nonce does not hold it; -1: a key of another type

local answers = {}
for i = 1, #KEYS / 3 do
  local nonce, ttl = ARGV[2 * i + 2], tonumber(ARGV[2 * i + 3])
  local lock = open(KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i], false)
  if not lock then
    answers[i] = -1
  elseif lock.live and lock.holder == nonce then
    extend(lock, ttl, false)
    answers[i] = ttl * 1000
  else
    -- A lease that has ended is never given back.
    if not lock.live then
      settle(lock, nil)
    end
    answers[i] = 0
  end
end
return answers
