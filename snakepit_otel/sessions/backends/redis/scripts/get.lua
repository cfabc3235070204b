-- keys: stat meta exp lru
-- parts: clock
-- flags: allow-oom
-- Return a session's record, touched or not.
local id, touch, incarnation = ARGV[1], ARGV[2] == '1', ARGV[3]
local line = redis.call('HGET', META, id)
if not line then
  return reply('missing')
end
local ttl, found = string.match(line, '^(%d+)\t%d+\t(%d+)\t')
local expiry = tonumber(redis.call('ZSCORE', EXP, id))
if now >= expiry or (incarnation ~= '' and found ~= incarnation) then
  return reply('missing')
end
if touch then
  expiry = now + ttl
  redis.call('ZADD', EXP, text(expiry), id)
  redis.call('ZADD', LRU, text(tick), id)
end
return reply('ok', text(expiry)) .. '\n' .. line
