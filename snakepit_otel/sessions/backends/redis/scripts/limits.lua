-- keys: stat
-- flags: allow-oom
-- Return what the store has agreed on, nothing where it is new.
return redis.call('HMGET', STAT, 'layout', 'name', 'shards', 'max_sessions', 'policy', 'max_session_bytes',
  'max_total_bytes', 'max_sessions_per_owner')
