-- keys: stat meta exp ids
-- parts: clock
-- flags: allow-oom
-- Return live sessions in order of id, those after an id: lines of expiry, id and record. The reply has the last id
-- that was seen, also of an expired session, to go on after.
local after, most = ARGV[1], tonumber(ARGV[2])
local ids = redis.call('ZRANGEBYLEX', IDS, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, most)
local lines = {}
for _, id in ipairs(ids) do
  local expiry = redis.call('ZSCORE', EXP, id)
  if now < tonumber(expiry) then
    lines[#lines + 1] = text(tonumber(expiry)) .. '\t' .. id .. '\t' .. redis.call('HGET', META, id)
  end
end
return reply(#ids == most and 'more' or 'ok') .. '\n' .. (ids[#ids] or '') .. '\n' .. table.concat(lines, '\n')
