-- keys: stat meta exp lru ids made keyset state gone replies times
-- parts: clock ledger record state ending replies
-- flags: allow-oom durable
-- Remove the least recently used sessions until some bytes are free; the reply has how many are still missing.
local size, protected, token, retention = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local again = answered(token)
if again then
  return again
end
local lines, goal = {}, count.weight - size
while count.weight > goal and #lines < BATCH do
  local oldest = redis.call('ZRANGE', LRU, 0, 1)
  local id = oldest[1] == protected and oldest[2] or oldest[1]
  if not id or id == protected then
    break
  end
  local expired = now >= tonumber(redis.call('ZSCORE', EXP, id))
  lines[#lines + 1] = finish(id, expired and 'ttl' or 'overflow')
end
local line = settle(#lines == BATCH and 'more' or 'ok', text(math.max(0, count.weight - goal)))
if #lines > 0 then
  line = line .. '\n' .. table.concat(lines, '\n')
end
return answer(token, retention, line)
