-- keys: stat meta exp lru keyset state
-- parts: clock record state
-- flags: allow-oom
-- Return a session's state, at most 1,000 keys at a time: a name in ARGV continues after it.
local id, touch, after = ARGV[1], ARGV[2] == '1', ARGV[3]
local line = redis.call('HGET', META, id)
if not line or now >= tonumber(redis.call('ZSCORE', EXP, id)) then
  return {reply('missing')}
end
local record = parse(line)
if touch then
  redis.call('ZADD', EXP, text(now + record.ttl), id)
  redis.call('ZADD', LRU, text(tick), id)
end
if record.keys == 0 then
  return {reply('ok', text(record.version), '0')}
end
local prefix = text(record.incarnation) .. ':'
local names = names_of(record.incarnation, after ~= '' and prefix .. after or nil, MOST)
local found = {reply('ok', text(record.version), #names == MOST and '1' or '0')}
if #names > 0 then
  for i, value in ipairs(redis.call('HMGET', STATE, unpack(names))) do
    found[#found + 1] = string.sub(names[i], #prefix + 1)
    found[#found + 1] = value
  end
end
return found
