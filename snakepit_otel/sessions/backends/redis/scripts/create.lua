-- keys: stat meta exp lru ids made keyset state gone due replies times
-- parts: clock ledger record state ending replies safety
-- flags: durable
-- Create a session, or touch and return the live one. Sessions are ended before it only where it is then created.
local NOBODY = string.rep('-', 16)
local id, group, token, body, retention = ARGV[1], ARGV[3], ARGV[4], ARGV[7], tonumber(ARGV[8])
local ttl, memory, weight = tonumber(ARGV[2]), tonumber(ARGV[5]), tonumber(ARGV[6])
local owner = string.sub(group, 1, 16)
local limits = redis.call('HMGET', STAT, 'layout', 'max_sessions', 'policy', 'max_session_bytes', 'max_total_bytes',
  'max_sessions_per_owner', 'longest')
if not limits[1] then
  return reply('fresh')
end

local function limit(index)
  return limits[index] == 'inf' and math.huge or tonumber(limits[index])
end

local lines = {}
local before = redis.call('HGET', META, id)
if before then
  local expiry = tonumber(redis.call('ZSCORE', EXP, id))
  if now < expiry then
    local record = parse(before)
    redis.call('ZADD', EXP, text(now + record.ttl), id)
    redis.call('ZADD', LRU, text(tick), id)
    local mine = record.token == token
    local line = settle(mine and 'mine' or 'live') .. '\n' .. before
    local ended = mine and answered(token)
    return ended and line .. '\n' .. ended or line
  end
end
if memory > limit(4) then
  return settle('budget')
end

local way = {}
if owner ~= NOBODY and limit(6) < math.huge
    and redis.call('ZLEXCOUNT', MADE, '[' .. owner, '(' .. owner .. '\255') >= limit(6) then
  -- An owner that is refused again and again costs no search: DUE has when its next session can expire at the earliest.
  local due = tonumber(redis.call('ZSCORE', DUE, owner))
  if not due or now >= due then
    redis.call('ZREMRANGEBYSCORE', DUE, '-inf', text(now))
    local earliest = math.huge
    for _, member in ipairs(redis.call('ZRANGEBYLEX', MADE, '[' .. owner, '(' .. owner .. '\255')) do
      local owned = string.sub(member, MEMBER)
      local expiry = tonumber(redis.call('ZSCORE', EXP, owned))
      if now < expiry then
        earliest = math.min(earliest, expiry)
      elseif #way < BATCH then
        way[#way + 1] = owned
      end
    end
    if #way == 0 then
      redis.call('ZADD', DUE, text(earliest), owner)
    end
  end
  if #way == 0 then
    add('rejected', 1)
    add('rejected_per_owner', 1)
    return settle('owner')
  end
end
local missing = count.weight + weight - limit(5)
if missing > 0 then
  return settle('full', text(missing))
end

if before then
  lines[1] = finish(id, 'ttl')
end
for _, owned in ipairs(way) do
  if owned ~= id then
    lines[#lines + 1] = finish(owned, 'ttl')
  end
end
if redis.call('ZCARD', EXP) >= limit(2) then
  finish_expired(BATCH, lines)
  local begin = #lines
  while redis.call('ZCARD', EXP) >= limit(2) do
    if limits[3] == 'reject' then
      add('rejected', 1)
      return settle('quota')
    end
    if #lines - begin >= BATCH then
      -- Far above a quota that was lowered: the caller goes on, with what has ended.
      return settle('again') .. '\n' .. table.concat(lines, '\n')
    end
    lines[#lines + 1] = finish(redis.call('ZRANGE', LRU, 0, 0)[1], 'overflow')
  end
end

add('created', 1)
add('incarnation', 1)
add('memory', memory)
add('weight', weight)
local record = {ttl = ttl, created = now, incarnation = count.incarnation, version = 0, memory = memory,
  weight = weight, keys = 0, token = token, write_token = '', group = group, worker = '', body = body}
redis.call('HSET', META, id, line_of(record))
redis.call('ZADD', EXP, text(now + ttl), id)
redis.call('ZADD', LRU, text(tick), id)
redis.call('ZADD', IDS, 0, id)
redis.call('ZADD', MADE, 0, member_of(id, record))
if ttl > (tonumber(limits[7]) or 0) then
  redis.call('HSET', STAT, 'longest', text(ttl))
  keep(ttl)
end
local line = settle('new', text(count.incarnation))
if #lines == 0 then
  return line
end
return line .. '\n' .. answer(token, retention, table.concat(lines, '\n'))
