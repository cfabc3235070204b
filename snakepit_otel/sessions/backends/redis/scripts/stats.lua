-- keys: stat exp
-- parts: clock ledger
-- flags: allow-oom
-- Return the ledger.
return settle('ok')
