-- State: values by `incarnation:key`, each after the 16 digits of its version, and a set of these names in order.
-- An incarnation is never used again, so that no state of an earlier session is ever read.
local DIGITS = 16
local MOST = 1000  -- arguments of one call; Lua's stack holds 8,000

-- Call a command with a list of arguments, which may be too long for one call.
local function in_parts(command, key, list)
  for i = 1, #list, MOST do
    redis.call(command, key, unpack(list, i, math.min(i + MOST - 1, #list)))
  end
end

local function names_of(incarnation, after, most)
  return redis.call('ZRANGEBYLEX', KEYSET, after and '(' .. after or '[' .. text(incarnation) .. ':',
    '(' .. text(incarnation) .. ';', 'LIMIT', 0, most)
end

-- Remove at most so many keys of an incarnation, and return how many.
local function forget(incarnation, most)
  local names = names_of(incarnation, nil, most)
  if #names > 0 then
    redis.call('HDEL', STATE, unpack(names))
    redis.call('ZREM', KEYSET, unpack(names))
  end
  return #names
end
