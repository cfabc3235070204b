-- keys: stat meta exp lru ids made keyset state due replies times warn
-- parts: clock ledger record state ending replies safety
-- flags: allow-oom durable
-- Count the ends that were reported, and remove expired sessions.
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
if #lines < most then
  keep(tonumber(redis.call('HGET', STAT, 'longest')) or 0)
end
local line = settle(#lines > 0 and #lines == most and 'more' or 'ok')
if #lines > 0 then
  line = line .. '\n' .. table.concat(lines, '\n')
elseif reported == 0 then
  return line
end
return answer(token, retention, line)
