-- keys: stat exp lru ids made meta keyset state gone due replies times warn
-- flags: durable
-- Agree with the store on its layout, its name, the number of shards and the limits; what is there is returned.
local layout, name, shards, force = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local FIELDS = {'layout', 'name', 'shards', 'max_sessions', 'policy', 'max_session_bytes', 'max_total_bytes',
  'max_sessions_per_owner'}
local there = redis.call('HMGET', STAT, unpack(FIELDS))
if not there[1] then
  -- Nothing, or what is left of a namespace that was abandoned.
  local manual = redis.call('HGET', STAT, 'manual')
  for i = 1, #KEYS do
    redis.call('DEL', KEYS[i])
  end
  if manual then
    redis.call('HSET', STAT, 'manual', manual)
  end
  -- Incarnations begin at the time, so that a store which lost everything does not repeat those it had.
  local time = redis.call('TIME')
  redis.call('HSET', STAT, 'layout', layout, 'name', name, 'shards', shards, 'incarnation',
    string.format('%d', time[1] * 1000000 + time[2]))
  force = true
elseif there[1] ~= layout or there[3] ~= shards then
  return there
end
if force then
  for i = 4, #FIELDS do
    redis.call('HSET', STAT, FIELDS[i], ARGV[i + 1])
  end
end
return redis.call('HMGET', STAT, unpack(FIELDS))
