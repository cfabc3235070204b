-- keys: stat meta exp lru keyset state
-- parts: clock ledger record state
-- flags: durable
-- Write state all or nothing. An attempt is an access, also where it is refused.
-- ARGV: id, token, the version or '', the number n of versions by key, n keys and versions, then keys and values;
-- a value is '-' to remove the key, else '+' and JSON.
local id, token, if_version, conditions = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local line = redis.call('HGET', META, id)
if not line or now >= tonumber(redis.call('ZSCORE', EXP, id)) then
  return settle('missing')
end
local record = parse(line)
redis.call('ZADD', EXP, text(now + record.ttl), id)
redis.call('ZADD', LRU, text(tick), id)
if record.write_token == token then
  return settle('ok', text(record.version))
end
if if_version ~= '' and record.version ~= tonumber(if_version) then
  return settle('conflict', text(record.version), '-1')
end
local prefix = text(record.incarnation) .. ':'
for i = 0, conditions - 1 do
  local value = record.keys > 0 and redis.call('HGET', STATE, prefix .. ARGV[5 + 2 * i])
  local version = value and tonumber(string.sub(value, 1, DIGITS)) or 0
  if version ~= tonumber(ARGV[6 + 2 * i]) then
    return settle('conflict', text(version), text(i))
  end
end

local limits = redis.call('HMGET', STAT, 'max_session_bytes', 'max_total_bytes')
local digits = string.format('%016d', count.version + 1)
local begin, growth, more = 5 + 2 * conditions, 0, 0
local added, values, removed = {}, {}, {}
for i = begin, #ARGV, 2 do
  local name, value = prefix .. ARGV[i], ARGV[i + 1]
  local size = record.keys > 0 and redis.call('HSTRLEN', STATE, name) or 0
  if string.sub(value, 1, 1) == '+' then
    growth = growth + #value - 1
    if size > 0 then
      growth = growth - (size - DIGITS)
    else
      growth, more = growth + #ARGV[i], more + 1
      added[#added + 1] = 0
      added[#added + 1] = name
    end
    values[#values + 1] = name
    values[#values + 1] = digits .. string.sub(value, 2)
  elseif size > 0 then
    growth, more = growth - (size - DIGITS) - #ARGV[i], more - 1
    removed[#removed + 1] = name
  end
end
if growth > 0 and record.memory + growth > tonumber(limits[1]) then
  return settle('budget', text(record.memory + growth))
end
if more > 0 and record.keys + more > math.max(1000, math.floor(tonumber(limits[1]) / 64)) then
  return settle('keys', text(record.keys + more))
end
local heavier = growth + 512 * more
local missing = count.weight + heavier - tonumber(limits[2])
if heavier > 0 and missing > 0 then
  return settle('full', text(missing))
end

add('version', 1)
add('memory', growth)
add('weight', heavier)
in_parts('HSET', STATE, values)
in_parts('ZADD', KEYSET, added)
in_parts('HDEL', STATE, removed)
in_parts('ZREM', KEYSET, removed)
record.version, record.memory, record.weight = count.version, record.memory + growth, record.weight + heavier
record.keys, record.write_token = record.keys + more, token
redis.call('HSET', META, id, line_of(record))
return settle('ok', text(count.version))
