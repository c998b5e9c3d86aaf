-- Looks at one lock and changes nothing.
--
-- KEYS     l q w
-- Answers  last token (0: none), holder, waiters
--          holder: none, or nonce, token, held for (us), left (us), provisional, identity
--          waiters: of each nonce, waits for (us), identity

local field = redis.call('HMGET', KEYS[1], 'last', 'holder', 'expires', 'lease', 'since',
  'provisional', 'identity')
local last = tonumber(field[1]) or 0
local queue = redis.call('ZRANGE', KEYS[2], 0, -1)

local holder = {}
if field[2] then
  local left = math.min((tonumber(field[3]) or 0) - now, (tonumber(field[4]) or 0) * 1000)
  if left > 0 then
    holder = { field[2], last, math.max(now - (tonumber(field[5]) or now), 0), left,
      field[6] == '1' and 1 or 0, field[7] or '' }
  end
end

local waiters = {}
for _, nonce in ipairs(queue) do
  local who = waiter({ w = KEYS[3] }, nonce)
  if who and who.ends > now then
    waiters[#waiters + 1] = { nonce, math.max(now - who.since, 0), who.identity }
  end
end
return { last, holder, waiters }
