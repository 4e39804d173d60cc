-- session_release.lua: deletes the mark of a session, unless somebody else has it by now.
--
-- KEYS  1 <prefix>:session:<user>:<session>
-- ARGV  1 the holder's value
--
-- Returns 1 when it was deleted, else 0.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
