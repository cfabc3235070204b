-- Store time in microseconds, which never runs backwards: not where the server's clock does, nor after a fail-over to
-- a server whose clock is behind. `tick` differs in each call, and so puts accesses in order. Tests set `manual`.
local function text(number)
  return string.format('%d', number)
end

local times = redis.call('HMGET', STAT, 'clk', 'manual')
local last = tonumber(times[1]) or 0
local now, tick, skew = tonumber(times[2]), 0, 0
if now == nil then
  local server = redis.call('TIME')
  now = server[1] * 1000000 + server[2]
  if now <= last then
    skew = last - now
    now = last + 1
  end
end
tick = math.max(now, last + 1)
redis.call('HSET', STAT, 'clk', text(tick))

local function reply(status, ...)
  return table.concat({status, text(skew), text(now), text(tick), ...}, ' ')
end
