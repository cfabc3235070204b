-- keys: stat meta exp made
-- parts: clock record
-- flags: allow-oom
-- Return live sessions of an owner, as `page` does, in the order of their creators and ages.
local owner, after, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local members = redis.call('ZRANGEBYLEX', MADE, after == '' and '[' .. owner or '(' .. after, '(' .. owner .. '\255',
  'LIMIT', 0, most)
local lines = {}
for _, member in ipairs(members) do
  local id = string.sub(member, MEMBER)
  local expiry = redis.call('ZSCORE', EXP, id)
  if now < tonumber(expiry) then
    lines[#lines + 1] = text(tonumber(expiry)) .. '\t' .. id .. '\t' .. redis.call('HGET', META, id)
  end
end
return reply(#members == most and 'more' or 'ok') .. '\n' .. (members[#members] or '') .. '\n'
  .. table.concat(lines, '\n')
