-- keys: stat meta exp lru ids made keyset state gone due replies times warn
-- parts: clock ledger record state ending replies safety
-- flags: allow-oom durable
-- Count the ends that were reported, and remove expired sessions, and state that ended ones have left.
local REMAINS = 500  -- keys of ended sessions that one script removes
local limit, reported, token, retention = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local again = answered(token)
if again then
  return again
end
if reported > 0 then
  add('reported', reported)
end
local lines, most = {}, math.min(limit, BATCH)
finish_expired(most, lines)
local due = #lines > 0 and #lines == most
local left = most > 0 and REMAINS or 0
while left > 0 do
  local ended = redis.call('ZRANGE', GONE, 0, 0)[1]
  if not ended then
    break
  end
  local removed = forget(tonumber(ended), left)
  if removed < left then
    redis.call('ZREM', GONE, ended)
  end
  left = left - removed
  due = due or left == 0
end
if #lines < most then
  keep(tonumber(redis.call('HGET', STAT, 'longest')) or 0)
end
local line = settle(due and 'more' or 'ok')
if #lines > 0 then
  line = line .. '\n' .. table.concat(lines, '\n')
elseif reported == 0 then
  return line
end
return answer(token, retention, line)
