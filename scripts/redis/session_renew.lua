-- session_renew.lua: keeps the mark of a held session alive, or finds out who has it now.
--
-- KEYS  1 <prefix>:session:<user>:<session>
-- ARGV  1 the holder's value: "<node> <connection> <time it came (ms)>"   2 how long the mark lives (ms)
--
-- Returns "" when it is the holder's (a lost mark is set again), else the value of whoever has it.
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return ''
end
if not held then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return ''
end
return held
