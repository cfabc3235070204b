-- keys: stat meta exp lru ids made keyset state gone
-- parts: clock ledger record state ending
-- flags: allow-oom durable
-- Delete a session, perhaps only one with an owner or an incarnation. One that has expired is left to the sweep.
local id, owner, incarnation = ARGV[1], ARGV[2], ARGV[3]
local line = redis.call('HGET', META, id)
if not line or now >= tonumber(redis.call('ZSCORE', EXP, id)) then
  return settle('ok')
end
local record = parse(line)
if (owner ~= '' and string.sub(record.group, 1, 16) ~= owner)
    or (incarnation ~= '' and text(record.incarnation) ~= incarnation) then
  return settle('ok')
end
line = finish(id, 'deleted')
return settle('ok') .. '\n' .. line
