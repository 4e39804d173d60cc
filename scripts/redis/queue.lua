-- queue.lua: appends a viewer's message to a queue's stream, once per (user, key).
--
-- KEYS  1 <prefix>:queue:{<name>}
--       2 <prefix>:dedupe:{<name>}:<length of user>:<user>:<key>   (left out: the message has no key)
-- ARGV  1 longest stream (entries)   2 how long a key is remembered (ms)
--       then the entry: 3 room  4 type  5 from  6 data  7 key ("" without)  8 node  9 time (ms)
--
-- Returns {"added", id}, {"repeat", id of the first}, {"other"} (the key came with other content) or {"full"}.
-- The key's value is "<id> <digest of room, type and data>".
local digest = redis.sha1hex(ARGV[3] .. '\0' .. ARGV[4] .. '\0' .. ARGV[6])
if KEYS[2] then
    local held = redis.call('GET', KEYS[2])
    if held then
        local id, content = string.match(held, '^(%S+) (%S+)$')
        if content == digest then
            return {'repeat', id}
        end
        return {'other'}
    end
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    return {'full'}
end
local id = redis.call('XADD', KEYS[1], '*', 'room', ARGV[3], 'type', ARGV[4], 'from', ARGV[5],
    'data', ARGV[6], 'key', ARGV[7], 'node', ARGV[8], 'time', ARGV[9])
if KEYS[2] then
    redis.call('SET', KEYS[2], id .. ' ' .. digest, 'PX', ARGV[2])
end
return {'added', id}
