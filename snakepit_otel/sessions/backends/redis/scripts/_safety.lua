-- The safety net for a namespace that nobody uses any more: all keys of a shard expire at one moment, a day after
-- the longest TTL. Sweeps put it off. The ledger depends on it in no way.
local function keep(longest)
  local seconds = text(math.ceil(longest / 1000000) + 86400)
  for i = 1, #KEYS do
    redis.call('EXPIRE', KEYS[i], seconds)
  end
end
