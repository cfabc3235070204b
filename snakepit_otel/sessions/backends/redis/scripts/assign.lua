-- keys: stat meta
-- parts: clock record
-- flags: allow-oom
-- Keep the worker that served a session last, which is no access.
local line = redis.call('HGET', META, ARGV[1])
if line then
  local record = parse(line)
  record.worker = ARGV[2]
  redis.call('HSET', META, ARGV[1], line_of(record))
end
return reply('ok')
