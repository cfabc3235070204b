-- The counters, read once and written once.
local NAMES = {'created', 'deleted', 'ttl', 'overflow', 'rejected', 'memory', 'rejected_per_owner', 'reported',
  'weight', 'version', 'incarnation'}
local count, changed = {}, {}
for i, value in ipairs(redis.call('HMGET', STAT, unpack(NAMES))) do
  count[NAMES[i]] = tonumber(value) or 0
end

local function add(name, number)
  count[name] = count[name] + number
  changed[name] = true
end

-- Write the counters that have changed, and return a reply with the ledger.
local function settle(status, ...)
  local fields = {}
  for name in pairs(changed) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(count[name])
  end
  if #fields > 0 then
    redis.call('HSET', STAT, unpack(fields))
  end
  return reply(status, text(count.created), text(count.deleted), text(count.ttl), text(count.overflow),
    text(count.rejected), text(redis.call('ZCARD', EXP)), text(count.memory), text(count.rejected_per_owner),
    text(count.reported), ...)
end
