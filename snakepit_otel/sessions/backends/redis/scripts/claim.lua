-- keys: stat warn replies times
-- parts: clock replies
-- flags: allow-oom
-- Add occurrences, and claim to warn of all that are pending. ARGV: reason, number, quiet microseconds, token,
-- retention, then owners and numbers. The reply has the number, the quiet microseconds, and the owners in JSON.
local MOST_OWNERS = 100
local reason, number, quiet, token, retention = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4],
  tonumber(ARGV[5])
local again = answered(token)
if again then
  return again
end
local COUNT, UNTIL, OWNERS = reason .. ':count', reason .. ':until', reason .. ':owners'
local pending = redis.call('HMGET', WARN, COUNT, UNTIL, OWNERS)
local occurrences, silent = (tonumber(pending[1]) or 0) + number, tonumber(pending[2]) or 0
local owners = pending[3] and cjson.decode(pending[3]) or {}
if #ARGV > 5 then
  local known = 0
  for _ in pairs(owners) do
    known = known + 1
  end
  for i = 6, #ARGV, 2 do
    local owner = ARGV[i]
    if not owners[owner] and known < MOST_OWNERS then
      owners[owner], known = 0, known + 1
    end
    if owners[owner] then
      owners[owner] = owners[owner] + tonumber(ARGV[i + 1])
    end
  end
end
local encoded = next(owners) and cjson.encode(owners) or '{}'
if occurrences == 0 or now < silent then
  redis.call('HSET', WARN, COUNT, text(occurrences), OWNERS, encoded)
  local line = reply('ok', '0', text(math.max(0, silent - now))) .. '\n{}'
  return number > 0 and answer(token, retention, line) or line
end
redis.call('HDEL', WARN, COUNT, OWNERS)
redis.call('HSET', WARN, UNTIL, text(now + quiet))
return answer(token, retention, reply('ok', text(occurrences), text(quiet)) .. '\n' .. encoded)
