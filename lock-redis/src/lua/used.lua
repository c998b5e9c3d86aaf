-- Which locks of one partition have a live holder or a queue.
--
-- KEYS     l q of each lock
-- Answers  1 or 0 for each lock

local answers = {}
for i = 1, #KEYS / 2 do
  local expires = redis.pcall('HGET', KEYS[2 * i - 1], 'expires')
  local depth = redis.pcall('ZCARD', KEYS[2 * i])
  local held = type(expires) == 'string' and (tonumber(expires) or 0) > now
  local queued = type(depth) == 'number' and depth > 0
  answers[i] = (held or queued) and 1 or 0
end
return answers
