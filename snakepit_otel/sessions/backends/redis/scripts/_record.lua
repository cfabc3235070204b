-- A record is one line: ttl, created, incarnation, version, memory, weight, keys, token, token of the last write,
-- group, worker and body, between tabs. Times are in microseconds; worker and body are JSON, which has no tabs.
-- A group is 16 characters for the owner, and 8 for the creator.
local RECORD = '^(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%x*)\t(%x*)\t([^\t]*)\t([^\t]*)\t(.*)$'
local FIELDS = {'ttl', 'created', 'incarnation', 'version', 'memory', 'weight', 'keys'}
local MEMBER = 41  -- where the id begins in a member of MADE, after the group and 16 digits

local function parse(line)
  local record, values = {}, {string.match(line, RECORD)}
  for i, name in ipairs(FIELDS) do
    record[name] = tonumber(values[i])
  end
  record.token, record.write_token, record.group, record.worker, record.body =
    values[8], values[9], values[10], values[11], values[12]
  return record
end

local function line_of(record)
  return table.concat({text(record.ttl), text(record.created), text(record.incarnation), text(record.version),
    text(record.memory), text(record.weight), text(record.keys), record.token, record.write_token, record.group,
    record.worker, record.body}, '\t')
end

local function member_of(id, record)
  return record.group .. string.format('%016d', record.created) .. id
end
