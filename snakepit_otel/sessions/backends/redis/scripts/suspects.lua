-- keys: stat meta made
-- parts: clock record
-- flags: allow-oom
-- Return groups of sessions by owner and creator, those after a group: lines of group, number, and when and how the
-- oldest was created. The sessions of a group are neighbours in MADE, the oldest first.
local after, most = ARGV[1], tonumber(ARGV[2])
local GROUP = 24
local lines = {}
while #lines < most do
  local first = redis.call('ZRANGEBYLEX', MADE, after == '' and '-' or '(' .. after .. '\255', '+', 'LIMIT', 0, 1)[1]
  if not first then
    break
  end
  after = string.sub(first, 1, GROUP)
  local record = parse(redis.call('HGET', META, string.sub(first, MEMBER)))
  lines[#lines + 1] = table.concat({after, text(redis.call('ZLEXCOUNT', MADE, '[' .. after, '(' .. after .. '\255')),
    text(record.created), record.body}, '\t')
end
return reply(#lines == most and 'more' or 'ok') .. '\n' .. table.concat(lines, '\n')
