-- Replies of calls that must not be done twice, for the caller that repeats one whose reply was lost.
local MOST_REPLIES = 10000

local function answered(token)
  return redis.call('HGET', REPLIES, token)
end

local function answer(token, seconds, line)
  redis.call('HSET', REPLIES, token, line)
  redis.call('ZADD', TIMES, text(tick), token)
  local old = redis.call('ZRANGEBYSCORE', TIMES, '-inf', text(tick - seconds * 1000000), 'LIMIT', 0, 20)
  if #old == 0 and redis.call('ZCARD', TIMES) > MOST_REPLIES then
    old = redis.call('ZRANGE', TIMES, 0, 0)
  end
  if #old > 0 then
    redis.call('HDEL', REPLIES, unpack(old))
    redis.call('ZREM', TIMES, unpack(old))
  end
  return line
end
