-- The end of a session, which is counted here and nowhere else.
local BATCH = 100  -- sessions that one script ends, to hold the server for milliseconds only
local FEW = 10  -- keys that are removed with their session; more of them are left to sweeps

local function finish(id, reason)
  local record = parse(redis.call('HGET', META, id))
  -- One whose TTL has passed ended then, not when somebody noticed.
  local stop = reason == 'ttl' and tonumber(redis.call('ZSCORE', EXP, id)) or now
  redis.call('HDEL', META, id)
  redis.call('ZREM', EXP, id)
  redis.call('ZREM', LRU, id)
  redis.call('ZREM', IDS, id)
  redis.call('ZREM', MADE, member_of(id, record))
  if record.keys > FEW then
    redis.call('ZADD', GONE, 0, text(record.incarnation))
  elseif record.keys > 0 then
    forget(record.incarnation, FEW)
  end
  add(reason, 1)
  add('memory', -record.memory)
  add('weight', -record.weight)
  return table.concat({reason, text(stop - record.created), text(record.incarnation), id, record.body}, '\t')
end

local function finish_expired(most, lines)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', EXP, '-inf', text(now), 'LIMIT', 0, math.min(most, BATCH))) do
    lines[#lines + 1] = finish(id, 'ttl')
  end
end
